package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// front forwards to the backend and returns where.
func front(t testing.TB, mode Mode, backend string) (string, *gate) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g := newGate(time.Minute)
	g.use(Backends{"x": backend})
	g.release()
	f := &forwarder{name: "x", gate: g, log: slog.New(slog.DiscardHandler)}
	go f.serve(l, mode)
	return l.Addr().String(), g
}

func TestHTTP(t *testing.T) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	back := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-End")
		w.Header().Set("X-Saw", fmt.Sprintf("%s|%s|%s|%s|%s|%s", r.Proto, r.Host, r.RequestURI, r.Header.Get("X-Forwarded-For"),
			r.Header.Get("X-Forwarded-Host"), r.Header.Get("X-Forwarded-Proto")))
		w.WriteHeader(http.StatusTeapot)
		w.Write(body)
		w.Header().Set("X-End", "yes")
	}))
	back.Config.Protocols = &protocols
	back.Start()
	defer back.Close()
	addr, g := front(t, HTTP, back.Listener.Addr().String())
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var p http.Protocols
		p.SetHTTP1(proto == "HTTP/1.1")
		p.SetUnencryptedHTTP2(proto == "HTTP/2.0")
		hc := &http.Client{Transport: &http.Transport{Protocols: &p}}
		defer hc.CloseIdleConnections()
		req, err := http.NewRequest("POST", "http://"+addr+"/a%2Fb/../c?x=1;y=2&z", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "service.example"
		req.Header.Set("X-Forwarded-For", "6.6.6.6")
		req.Header.Set("X-Forwarded-Host", "evil.example")
		req.Header.Set("X-Forwarded-Proto", "https")
		req.Header.Set("Forwarded", "for=6.6.6.6")
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "hello" || resp.StatusCode != http.StatusTeapot || resp.Trailer.Get("X-End") != "yes" {
			t.Errorf("%s: %d %q, trailer %v, %v", proto, resp.StatusCode, body, resp.Trailer, err)
		}
		want := proto + "|service.example|/a%2Fb/../c?x=1;y=2&z|127.0.0.1|service.example|http"
		if got := resp.Header.Get("X-Saw"); got != want {
			t.Errorf("the service saw %q, want %q", got, want)
		}
	}
	if busy, _, _ := g.stats(); busy != 0 {
		t.Errorf("%d requests are under way", busy)
	}

	back.Close()
	resp, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("without a service: %s", resp.Status)
	}
}

// TestHostile sends what a well-behaved client doesn't.
func TestHostile(t *testing.T) {
	seen := make(chan string, 10)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		seen <- r.Method + " " + r.URL.Path + " " + string(body)
	}))
	defer back.Close()
	addr, _ := front(t, HTTP, back.Listener.Addr().String())
	for name, c := range map[string]struct {
		send   string
		status string
		saw    []string
	}{
		"two lengths":    {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400", nil},
		"bad length":     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", "400", nil},
		"odd encoding":   {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501", nil},
		"space in name":  {"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n", "400", nil},
		"no host":        {"GET /a HTTP/1.1\r\n\r\n", "400", nil},
		"two hosts":      {"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400", nil},
		"large header":   {"GET /a HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n", "431", nil},
		"bad chunk size": {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "", nil},
		"length and chunks": {
			"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
			// The chunks count, and what follows is a request of the client's own.
			"200", []string{"POST /a A"}},
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(conn, c.send)
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if c.status != "" {
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(line, c.status) {
				t.Errorf("%s: answered %q, %v", name, line, err)
			}
		}
		for _, want := range c.saw {
			select {
			case got := <-seen:
				if got != want {
					t.Errorf("%s: the service saw %q, want %q", name, got, want)
				}
			case <-time.After(2 * time.Minute):
				t.Errorf("%s: the service saw nothing", name)
			}
		}
		conn.Close()
	}
}

func TestWebSocketIsNotWaitedFor(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		io.Copy(conn, rw)
	}))
	defer back.Close()
	addr, g := front(t, HTTP, back.Listener.Addr().String())
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	g.hold()
	if left := g.drain(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
	io.WriteString(conn, "still there\n")
	if line, err := r.ReadString('\n'); err != nil || line != "still there\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c) // until the client has said all
				fmt.Fprintf(c, "%d bytes", len(all))
			}()
		}
	}()
	addr, g := front(t, TCP, l.Addr().String())
	g.hold()
	c, err := net.Dial("tcp", addr) // held
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	g.release()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "1048576 bytes" {
		t.Errorf("%q, %v", got, err)
	}
}
