//go:build linux

package retain

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/supervisor/process"
)

// A rig is a service with its keeper.
type rig struct {
	t      *testing.T
	runner *process.OS
	keeper *Keeper
	out    lockedBuffer
	lost   map[string]int
	mu     sync.Mutex
	proc   process.Process
	plain  bool // without a keeper
	env    []string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T, opts Options) *rig {
	t.Helper()
	if err := process.CanTellBinds("/proc/self/exe"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r := &rig{t: t, lost: map[string]int{}}
	log := slog.New(slog.NewTextHandler(&r.out, nil))
	r.runner = process.NewOS(t.TempDir(), log)
	opts.Log = log
	opts.Lost = func(reason string) {
		r.mu.Lock()
		r.lost[reason]++
		r.mu.Unlock()
	}
	r.keeper = New(opts)
	t.Cleanup(func() {
		r.keeper.Release()
		r.stop()
		if t.Failed() {
			t.Log(r.out.String())
		}
	})
	return r
}

func (r *rig) start(words string) {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	s := process.Spec{File: exe, Name: "service", Stop: syscall.SIGTERM, Grace: 10 * time.Second, Output: process.NewOutput(&r.out, &r.out),
		Env: append(os.Environ(), append(r.env, fmt.Sprintf("%s=lifeline=%d %s", envService, os.Getpid(), words))...)}
	if !r.plain && !r.keeper.Plain() {
		s.Handover, s.TellBinds = r.keeper, true
	}
	if r.proc, err = r.runner.Start(s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	if r.proc == nil {
		return
	}
	if _, err := r.proc.Stop(context.Background()); err != nil {
		r.t.Error(err)
	}
	r.proc = nil
}

// get asks the service, over a connection of its own, which process it is.
func get(addr, query string) (string, error) {
	hc := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + addr + "/" + query)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

// up waits until the service answers.
func (r *rig) up(addr string) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pid, err := get(addr, "")
		if err == nil && pid == fmt.Sprint(r.proc.Pid()) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("the service does not answer: %v", err)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A client that comes while nothing runs is served by the next process.
func TestRestart(t *testing.T) {
	for _, env := range [][]string{nil, {"GODEBUG=multipathtcp=0"}} {
		r := newRig(t, Options{})
		r.env = env
		addr := freeAddr(t)
		words := "tcp=" + addr + " udp=" + addr
		r.start(words)
		r.up(addr)
		for range 3 {
			r.keeper.Ready()
			r.stop()
			c, err := net.Dial("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			answer := make(chan string)
			go func() {
				s, err := get(addr, "")
				if err != nil {
					s = err.Error()
				}
				answer <- s
			}()
			select {
			case s := <-answer:
				t.Fatalf("nobody runs, and %s answers", s)
			case <-time.After(50 * time.Millisecond):
			}
			r.start("start=100ms " + words)
			if s := <-answer; s != fmt.Sprint(r.proc.Pid()) {
				t.Fatalf("%s answers; want process %d", s, r.proc.Pid())
			}
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			buf := make([]byte, 10)
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
				t.Errorf("the datagram sent meanwhile: %q, %v", buf[:n], err)
			}
			c.Close()
		}
		if len(r.lost) > 0 {
			t.Errorf("lost: %v", r.lost)
		}
		if st := r.keeper.Status(); st.Off != "" || len(st.Sockets) != 2 || len(st.Warnings) > 0 || !strings.Contains(fmt.Sprint(st.Sockets), addr) {
			t.Errorf("status %+v", st)
		}
	}
}
