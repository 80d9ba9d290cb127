package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/upkeep/web/acme/acmetest"
)

// A server is one whose certificate is managed.
type server struct {
	*Manager
	ca   *acmetest.CA
	addr string
	log  *bytes.Buffer
}

// tick is told of each wait of Run and ends it when the test takes it.
type tick chan time.Duration

func newServer(t *testing.T, names ...string) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ca: acmetest.New(t, ln.Addr().String()), addr: ln.Addr().String(), log: &bytes.Buffer{}}
	s.open(t, filepath.Join(t.TempDir(), "acme"), names...)
	tl := tls.NewListener(ln, &tls.Config{NextProtos: []string{"http/1.1", Proto}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.GetCertificate(h)
	}})
	go func() {
		for {
			c, err := tl.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.(*tls.Conn).Handshake() // the other side sees how it goes
				c.Close()
			}()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return s
}

func (s *server) open(t *testing.T, dir string, names ...string) {
	t.Helper()
	m, err := New(Config{Directory: s.ca.URL, Names: names, Dir: dir, Contact: "operator@example.org", Roots: s.ca.Roots, Log: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Manager = m
}

// dial connects as a browser that trusts the test's authority.
func (s *server) dial(name string) (*x509.Certificate, error) {
	c, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: name, RootCAs: s.ca.Pool, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

// run starts Run; the channel has its waits.
func (s *server) run(t *testing.T) tick {
	t.Helper()
	waits := make(tick)
	s.sleep = func(ctx context.Context, d time.Duration) bool {
		select {
		case waits <- d:
			return true
		case <-ctx.Done():
			return false
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return waits
}

// A certificate is issued for all names, kept over a restart, and renewed when
// a third of its time is left.
func TestIssueAndRenew(t *testing.T) {
	s := newServer(t, "a.example.org", "b.example.org")
	s.ca.Life(90 * 24 * time.Hour)
	if _, err := s.dial("a.example.org"); err == nil {
		t.Fatal("connected without a certificate")
	}
	waits := s.run(t)
	if d := <-waits; d < look || d > look*12/10 {
		t.Errorf("looks again after %v\n%s", d, s.log)
	}
	for _, name := range []string{"a.example.org", "b.example.org"} {
		if _, err := s.dial(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	first := s.current().Leaf.NotAfter
	for _, name := range []string{accountFile, certificateFile} {
		fi, err := os.Stat(s.file(name))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, fi.Mode(), err)
		}
	}
	<-waits // looked again: too early
	if n := s.ca.Issued(); n != 1 {
		t.Errorf("%d certificates", n)
	}

	// A restart takes what is on disk, and the same account.
	dir := s.cfg.Dir
	again := &server{ca: s.ca, log: s.log}
	again.open(t, dir, "a.example.org", "b.example.org")
	if again.current() == nil || !again.current().Leaf.NotAfter.Equal(first) || due(again.cert, again.cfg.Names, time.Now()) {
		t.Fatalf("after a restart: %v, want one until %v", again.current(), first)
	}
	for after, want := range map[time.Duration]bool{59 * 24 * time.Hour: false, 61 * 24 * time.Hour: true, 100 * 24 * time.Hour: true} {
		if got := due(again.cert, again.cfg.Names, time.Now().Add(after)); got != want {
			t.Errorf("after %v it is due: %v", after, got)
		}
	}
	if !due(again.cert, []string{"a.example.org", "c.example.org"}, time.Now()) {
		t.Error("another name needs no other certificate")
	}
}

// A short certificate is renewed while the server runs.
func TestRenewWhileRunning(t *testing.T) {
	s := newServer(t, "a.example.org")
	s.ca.Life(time.Hour)
	var ahead atomic.Int64 // of the manager's clock
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	waits := s.run(t)
	if d := <-waits; d > 20*time.Minute {
		t.Errorf("a certificate of an hour is looked at after %v", d)
	}
	if s.ca.Issued() != 1 || s.current() == nil {
		t.Fatalf("%d certificates\n%s", s.ca.Issued(), s.log)
	}
	s.ca.Life(24 * time.Hour)
	ahead.Store(int64(45 * time.Minute))
	<-waits // it may have looked before the clock was set
	<-waits
	if s.ca.Issued() != 2 {
		t.Errorf("%d certificates", s.ca.Issued())
	}
	if leaf, err := s.dial("a.example.org"); err != nil || time.Until(leaf.NotAfter) < 20*time.Hour {
		t.Errorf("the old certificate is served: %v", err)
	}
}

// While the authority refuses, it is asked less and less often, the old
// certificate goes on, and the reason is in the log.
func TestRefused(t *testing.T) {
	s := newServer(t, "a.example.org")
	s.ca.Refuse(true)
	waits := s.run(t)
	last := time.Duration(0)
	for range 4 {
		d := <-waits
		if d <= last {
			t.Errorf("waits %v after %v", d, last)
		}
		last = d
	}
	if _, err := s.dial("a.example.org"); err == nil {
		t.Error("connected")
	}
	s.ca.Refuse(false)
	<-waits // asked again
	<-waits
	if _, err := s.dial("a.example.org"); err != nil {
		t.Error(err)
	}
}

// Somebody who is not at the name's address gets nothing.
func TestNotOurName(t *testing.T) {
	s := newServer(t, "a.example.org")
	s.ca = acmetest.New(t, "127.0.0.1:1") // where the name leads in truth; nobody is there
	s.open(t, t.TempDir(), "a.example.org")
	if err := s.renew(t.Context()); err == nil || !strings.Contains(err.Error(), "port 443") {
		t.Errorf("%v", err)
	}
	if s.ca.Issued() != 0 || len(s.ca.Failures()) != 1 || s.cert != nil {
		t.Errorf("issued %d, failures %v", s.ca.Issued(), s.ca.Failures())
	}
}

// The authority's own server is checked.
func TestUntrustedAuthority(t *testing.T) {
	s := newServer(t, "a.example.org")
	m, err := New(Config{Directory: s.ca.URL, Names: []string{"a.example.org"}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.renew(t.Context()); err == nil || s.ca.Issued() != 0 {
		t.Errorf("%v", err)
	}
}

// Without a challenge under way nobody gets a challenge's certificate.
func TestHello(t *testing.T) {
	s := newServer(t, "a.example.org")
	if _, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example.org", SupportedProtos: []string{Proto}}); err == nil {
		t.Error("a challenge out of nothing")
	}
	if err := s.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: "other.example.org", SupportedProtos: []string{"h2", Proto}})
	if err != nil || c != s.cert {
		t.Errorf("an ordinary client: %v", err)
	}
	if len(s.challenges) != 0 {
		t.Errorf("challenges are left: %v", s.challenges)
	}
}

func TestNewRefuses(t *testing.T) {
	good := []string{"a.example.org"}
	for name, cfg := range map[string]Config{
		"http":    {Directory: "http://ca.example.org/directory", Names: good},
		"no URL":  {Directory: "letsencrypt", Names: good},
		"no name": {Directory: "https://ca.example.org/directory"},
		"address": {Directory: "https://ca.example.org/directory", Names: []string{"192.0.2.1"}},
		"wild":    {Directory: "https://ca.example.org/directory", Names: []string{"*.example.org"}},
		"local":   {Directory: "https://ca.example.org/directory", Names: []string{"localhost"}},
		"roots":   {Directory: "https://ca.example.org/directory", Names: good, Roots: "/nonexistent"},
	} {
		cfg.Dir = t.TempDir()
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A damaged file is no reason not to start.
	dir := t.TempDir()
	for _, file := range []string{certificateFile, accountFile} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := New(Config{Directory: "https://127.0.0.1:1/directory", Names: good, Dir: dir})
	if err != nil || m.cert != nil {
		t.Fatalf("%v", err)
	}
	if err := m.renew(t.Context()); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("%v", err)
	}
}

func TestPause(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 50: lastTry} {
		if got := pause(n); got != want {
			t.Errorf("pause(%d) = %v, want %v", n, got, want)
		}
	}
}
