//go:build unix

package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

func TestMain(m *testing.M) {
	Helper()
	os.Exit(m.Run())
}

// patience is for what happens by itself, on a slow machine too.
const patience = 2 * time.Minute

// service is a backend that answers with its name and takes a moment.
func service(t testing.TB, name string) (*httptest.Server, Backends) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(5 * time.Millisecond)
		io.WriteString(w, name)
	}))
	s.Start()
	t.Cleanup(s.Close)
	return s, Backends{"web": s.Listener.Addr().String()}
}

func start(t testing.TB, hold time.Duration) (*Proxy, string) {
	t.Helper()
	p, err := Start(t.Context(), Options{
		Program: os.Args[0], Listen: []Listen{{"web", "127.0.0.1:0", HTTP}}, Hold: hold, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, "http://" + p.Addrs()["web"]
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUpgrade exchanges the service under load, both ways: no request fails.
func TestUpgrade(t *testing.T) {
	p, url := start(t, time.Minute)
	ctx := t.Context()
	old, addrs := service(t, "v0")
	must(t, p.Switch(ctx, addrs, patience))
	must(t, p.Release(ctx))
	if got, err := get(url); got != "v0" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var sent, failed atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			tr := &http.Transport{DisableKeepAlives: i%2 == 0}
			defer tr.CloseIdleConnections()
			hc := &http.Client{Transport: tr}
			for load.Err() == nil {
				var resp *http.Response
				var err error
				if i%4 < 2 {
					resp, err = hc.Get(url)
				} else {
					resp, err = hc.Post(url, "text/plain", io.NopCloser(strings.NewReader("a body that can't be sent again")))
				}
				sent.Add(1)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("client %d: %v, %+v", i, err, resp)
				}
			}
		})
	}
	for n := range 6 {
		// Each version has its share.
		for to := sent.Load() + 100; sent.Load() < to; {
			time.Sleep(time.Millisecond)
		}
		if n%2 == 0 { // hold, stop, start, switch, release
			left, err := p.Hold(ctx, patience)
			must(t, err)
			if left != 0 {
				t.Errorf("%d requests are under way after holding", left)
			}
			old.Close()
			old, addrs = service(t, fmt.Sprintf("v%d", n+1))
			must(t, p.Switch(ctx, addrs, patience))
			must(t, p.Release(ctx))
		} else { // the new one beside the old
			next, addrs := service(t, fmt.Sprintf("v%d", n+1))
			must(t, p.Switch(ctx, addrs, patience))
			left, err := p.Drain(ctx, patience)
			must(t, err)
			if left != 0 {
				t.Errorf("%d requests are under way after draining", left)
			}
			old.Close()
			old = next
		}
		if got, err := get(url); got != fmt.Sprintf("v%d", n+1) || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d requests, %d failed", sent.Load(), failed.Load())
}

// TestBadVersion keeps the old one when the new one never listens.
func TestBadVersion(t *testing.T) {
	p, url := start(t, 50*time.Millisecond)
	ctx := t.Context()
	_, addrs := service(t, "old")
	must(t, p.Switch(ctx, addrs, patience))
	must(t, p.Release(ctx))
	_, err := p.Hold(ctx, patience)
	must(t, err)
	none, err := Reserve(p.opt.Listen)
	must(t, err)
	if err := p.Switch(ctx, none, 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Fatalf("switched to a service that isn't there: %v", err)
	}
	if err := p.Switch(ctx, Backends{"other": "127.0.0.1:1"}, time.Second); err == nil {
		t.Error("switched to backends without the listener's")
	}
	// Held too long: an honest answer instead of silence.
	resp, err := http.Get(url)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("held too long: %s", resp.Status)
	}
	must(t, p.Release(ctx))
	if got, err := get(url); got != "old" || err != nil {
		t.Errorf("after the roll-back: %q, %v", got, err)
	}
}

// TestHelperDies has another helper go on with the same sockets and backends.
func TestHelperDies(t *testing.T) {
	p, url := start(t, time.Minute)
	ctx := t.Context()
	_, addrs := service(t, "v1")
	must(t, p.Switch(ctx, addrs, patience))
	must(t, p.Release(ctx))
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	must(t, syscall.Kill(l.pid, syscall.SIGKILL))
	<-l.gone
	// The listening socket never went away, so this waits and is answered.
	if got, err := get(url); got != "v1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if s, err := p.Stats(ctx); err != nil || s.Held {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestHandoff goes on with a helper as the supervisor's next program does.
func TestHandoff(t *testing.T) {
	p, url := start(t, time.Minute)
	ctx := t.Context()
	_, addrs := service(t, "v1")
	must(t, p.Switch(ctx, addrs, patience))
	must(t, p.Release(ctx))
	b := handoff.New()
	defer b.Close()
	must(t, p.Handoff(b))
	opt := Options{Program: os.Args[0], Hold: time.Minute, Log: slog.New(slog.DiscardHandler)}
	pid := p.link.pid
	// An exec ends all goroutines of the program before; its descriptors close.
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	must(t, p.link.conn.SetReadDeadline(time.Now()))
	<-p.link.gone
	next, err := Attach(ctx, b, opt)
	must(t, err)
	defer next.Close()
	if next.link.pid != pid {
		t.Errorf("helper %d instead of %d", next.link.pid, pid)
	}
	if got, err := get(url); got != "v1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_, addrs = service(t, "v2")
	must(t, next.Switch(ctx, addrs, patience))
	if got, err := get(url); got != "v2" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if none, err := Attach(ctx, handoff.New(), opt); none != nil || err != nil {
		t.Errorf("a proxy out of nothing: %v, %v", none, err)
	}
}

func TestEndsWithTheSupervisor(t *testing.T) {
	p, url := start(t, time.Minute)
	pid := p.link.pid
	p.Close()
	deadline := time.Now().Add(patience)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatal("the helper is still there")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		conn.Close()
		t.Error("somebody still listens")
	}
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	opt := Options{Program: os.Args[0], Listen: []Listen{{"web", taken.Addr().String(), HTTP}}, Log: slog.New(slog.DiscardHandler)}
	if _, err := Start(t.Context(), opt); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("a taken address: %v", err)
	}
	opt.Listen[0].Address = "127.0.0.1:0"
	opt.Program = "/bin/false"
	if _, err := Start(t.Context(), opt); err == nil {
		t.Error("started with a program that is no helper")
	}
}

// FuzzControl feeds the helper's side of the control protocol.
func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":1,"verb":"listen","listen":[]}` + "\n" + `{"v":1,"id":2,"verb":"switch","backends":{},"timeout":1}` + "\n" + `{"v":1,"id":3,"verb":"release"}` + "\n"))
	f.Add([]byte(`{"v":2,"id":1,"verb":"listen"}` + "\n"))
	f.Add([]byte("{}\nnot json\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "timeout") && len(data) > 200 {
			t.Skip("long waits find nothing")
		}
		a, b := net.Pipe()
		go io.Copy(io.Discard, a)
		go func() {
			a.Write(data)
			a.Close()
		}()
		_ = serve(b, func(int) (net.Listener, error) { return nil, net.ErrClosed }, slog.New(slog.DiscardHandler))
		b.Close()
	})
}
