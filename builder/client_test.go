package builder

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func TestClientAddr(t *testing.T) {
	proxies, err := parseNetworks([]string{"127.0.0.0/8", "::1", "192.0.2.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		remote    string
		forwarded []string
		want      string
	}{
		{"203.0.113.5", nil, "203.0.113.5"},
		{"203.0.113.5", []string{"198.51.100.1"}, "203.0.113.5"}, // not one of our proxies
		{"127.0.0.1", nil, "127.0.0.1"},
		{"127.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"::1", []string{"2001:db8::7"}, "2001:db8::7"},
		{"127.0.0.1", []string{"10.0.0.1, 198.51.100.1"}, "198.51.100.1"}, // the left one anybody can write
		{"127.0.0.1", []string{"10.0.0.1", "198.51.100.1 , 192.0.2.9"}, "198.51.100.1"},
		{"127.0.0.1", []string{"192.0.2.8,192.0.2.9"}, "192.0.2.8"},
		{"127.0.0.1", []string{"rubbish, 198.51.100.1"}, "198.51.100.1"},
		{"192.0.2.9", []string{"198.51.100.1, rubbish"}, "192.0.2.9"},
		{"127.0.0.1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"127.0.0.1", []string{",,,"}, "127.0.0.1"},
		{"127.0.0.1", []string{"198.51.100.1:4711"}, "198.51.100.1"}, // as some proxies write it
		{"127.0.0.1", []string{"198.51.100.1, [2001:db8::7]:80"}, "2001:db8::7"},
	} {
		if got := clientAddr(netip.MustParseAddr(tc.remote), tc.forwarded, proxies); got.String() != tc.want {
			t.Errorf("from %s with %q: %s; want %s", tc.remote, tc.forwarded, got, tc.want)
		}
	}
	if got := clientAddr(netip.Addr{}, []string{"198.51.100.1"}, proxies); got.IsValid() {
		t.Errorf("from nowhere: %s", got)
	}
}

func TestParseNetworks(t *testing.T) {
	got, err := parseNetworks([]string{"192.0.2.7", "192.0.2.7/24", "2001:db8::/32", "::1"})
	if err != nil || got[0].String() != "192.0.2.7/32" || got[1].String() != "192.0.2.0/24" || got[2].String() != "2001:db8::/32" || got[3].String() != "::1/128" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "example.org", "192.0.2.0/33", "192.0.2.0-192.0.2.9"} {
		if _, err := parseNetworks([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// Pages of modules are limited for each client network behind our own reverse
// proxy, with the time to wait; other networks and listed addresses go on.
func TestPageLimit(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.Limit.Pages, c.Limit.Except = 2, []string{"198.51.100.77"} }})
	for i, tc := range []struct {
		client, path string
		status       int
	}{
		{"198.51.100.1", "/example.org/hello", 200},
		{"198.51.100.2", "/example.org/hello@v1.0.0", 302}, // a neighbour
		{"198.51.100.3", "/example.org/hello", 429},
		{"198.51.100.3", "/example.org/hello@latest/" + target() + "/", 429},
		{"198.51.100.3", "/tlog/lookup/example.org/hello@latest/" + target() + "/", 429},
		{"198.51.100.3", "/", 200}, // asks nobody
		{"198.51.100.77", "/example.org/hello", 200},
		{"203.0.113.1", "/example.org/hello", 200},
		{"1.1.1.1, 198.51.100.3", "/example.org/hello", 429},
	} {
		resp, body := ts.get(t, "GET", tc.path, "X-Forwarded-For", tc.client)
		if resp.StatusCode != tc.status {
			t.Errorf("%d: %s for %s: %d %s; want %d", i, tc.path, tc.client, resp.StatusCode, body, tc.status)
		}
		if wait := resp.Header.Get("Retry-After"); (wait != "") != (resp.StatusCode == 429) || wait != "" && wait != "30" {
			t.Errorf("%d: Retry-After %q", i, wait)
		}
	}
}

// A refused build says when to come again, on its page's address and in the log.
func TestRetryAfter(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.Limit.Recent, c.Limit.Old = 1, 1 }})
	req := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = "203.0.113.9:1000"
		w := httptest.NewRecorder()
		ts.ServeHTTP(w, r)
		return w
	}
	if w := req("/tlog/lookup/example.org/hello@v1.0.0/" + target() + "/"); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/tlog/lookup/example.org/hello@v1.0.1/" + target() + "/", "/example.org/hello@v1.0.1/" + target() + "/opinion"} {
		if w := req(path); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "3600" || !strings.Contains(w.Body.String(), "too many") {
			t.Errorf("%s: %d %s %v", path, w.Code, w.Body, w.Header())
		}
	}
}

// A client that does not take its answer is given up; the next request of a
// connection may wait again.
func TestPatience(t *testing.T) {
	s := &Service{patient: 50 * time.Millisecond}
	gaveUp := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.patience(w, 1000)
		chunk := make([]byte, 1<<20)
		for range 1 << 10 {
			if _, err := w.Write(chunk); err != nil {
				gaveUp <- err
				return
			}
		}
		gaveUp <- nil
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-gaveUp; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}

	ts := start(t, newEcosystem(t), testOptions{})
	for path, want := range map[string]int{"/tlog/latest": 2, "/": 2, "/tlog/lookup/x": 1} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		ts.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if n := len(w.set); n != want || !w.set[n-1].IsZero() || n > 1 && w.set[0].IsZero() {
			t.Errorf("%s: deadlines %v", path, w.set)
		}
	}
	for path, want := range map[string]bool{"/tlog/latest": false, "/tlog/lookup/x": true, "/": false, "/example.org/x": false, "/example.org/x@v1.0.0/linux-amd64-go1.26.8/events": true} {
		if waits(path) != want {
			t.Errorf("%s waits: %v", path, !want)
		}
	}
}

// deadlines notes the deadlines that a handler sets.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// A reverse proxy that does not say who asks is told of once.
func TestSilentProxy(t *testing.T) {
	for _, tc := range []struct {
		remote, host string
		header       []string
		want         int
	}{
		{"127.0.0.1:1000", "build.example.org", nil, 1},
		{"127.0.0.1:1000", "127.0.0.1:8000", []string{"X-Real-Ip", "192.0.2.1"}, 1},
		{"127.0.0.1:1000", "127.0.0.1:8000", []string{"Via", "1.1 proxy"}, 1},
		{"127.0.0.1:1000", "build.example.org", []string{"X-Forwarded-For", "192.0.2.1"}, 0},
		{"127.0.0.1:1000", "127.0.0.1:8000", nil, 0},
		{"127.0.0.1:1000", "localhost", nil, 0},
		{"[::1]:1000", "[::1]:8000", nil, 0},
		{"192.0.2.1:1000", "build.example.org", nil, 0},
	} {
		var out bytes.Buffer
		c, err := newClientLimits(DefaultConfig().Limit, slog.New(slog.NewTextHandler(&out, nil)))
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{RemoteAddr: tc.remote, Host: tc.host, Header: http.Header{}}
		for i := 0; i < len(tc.header); i += 2 {
			r.Header.Set(tc.header[i], tc.header[i+1])
		}
		for range 3 {
			c.identify(r, http.Header{})
		}
		if got := strings.Count(out.String(), "X-Forwarded-For"); got != tc.want {
			t.Errorf("%+v: %d warnings: %s", tc, got, out.String())
		}
	}
}
