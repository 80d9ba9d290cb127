package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/web/acme/acmetest"
)

// freeAddr is an address that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Pages get their certificate by ACME on their own listener, and visitors get
// the pages through it.
func TestListenACME(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := acmetest.New(t, inner.Addr().String())
	const name = "upkeep.example.org"
	table := TLS{ACME: ca.URL, Roots: ca.Roots, Contact: "operator@example.org"}
	listen := table.Listen(":443", []string{"host1", name}, t.TempDir(), slog.New(slog.DiscardHandler))
	listen.Listener, listen.Login = inner, true
	if !listen.TLS() || listen.Scheme() != "https" {
		t.Error("no TLS")
	}
	ln, err := listen.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(Secure(Security{Hosts: []string{name}, HTTPS: true}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "inside") // gone viewer
	})), nil)
	go srv.Serve(ln)
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", inner.Addr().String())
		},
	}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) { // the certificate comes in its own time
		resp, err := client.Get("https://" + name + "/")
		if err != nil {
			if time.Now().After(end) {
				t.Fatalf("%v; failed challenges: %v", err, ca.Failures())
			}
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "inside" || resp.ProtoMajor != 2 || resp.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%q by %s, %v", body, resp.Proto, err)
		}
		break
	}
}

func TestListenACMERefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, l := range map[string]Listen{
		"no names":       TLS{ACME: "https://ca.example.org/directory"}.Listen("127.0.0.1:0", []string{"localhost", "192.0.2.1"}, t.TempDir(), log),
		"files as well":  TLS{ACME: "https://ca.example.org/directory", Cert: "c", Key: "k"}.Listen("127.0.0.1:0", []string{"a.example.org"}, t.TempDir(), log),
		"nobody logs in": TLS{ACME: "https://ca.example.org/directory"}.Listen(":443", []string{"a.example.org"}, t.TempDir(), log),
	} {
		if ln, err := l.Open(t.Context()); err == nil {
			ln.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// The second address serves metrics and nothing else.
func TestServeMetrics(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "upkeep_x 1\n") // gone viewer
	})
	addr := freeAddr(t)
	for tries := 0; ; tries++ { // another program may take the port first
		err := ServeMetrics(t.Context(), addr, Security{}, page, slog.New(slog.DiscardHandler))
		if err == nil {
			break
		} else if tries == 10 || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		addr = freeAddr(t)
	}
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/api/v1/status": 404} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
		}
	}
	resp, err := http.Post("http://"+addr+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", resp.StatusCode)
	}
}
