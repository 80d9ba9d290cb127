package discover

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover/zonetest"
)

func TestUDP(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	var mixed, lower int
	tr.Mu.Lock()
	tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg {
		if q.Name == strings.ToLower(q.Name) {
			lower++
		} else {
			mixed++
		}
		return m
	}
	tr.Mu.Unlock()
	d := discoverer(t, tr)
	a, err := d.Ask(t.Context(), hello)
	if err != nil || a.Sources[0].Transport != "udp" {
		t.Fatalf("%+v, %v", a, err)
	}
	tr.Mu.Lock()
	defer tr.Mu.Unlock()
	if mixed <= lower {
		t.Errorf("%d names with mixed case, %d without", mixed, lower)
	}
	if tr.TCP != 0 {
		t.Errorf("%d questions over TCP", tr.TCP)
	}
}

func TestTruncated(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	path := tr.NewPath(t)
	path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
		if !tcp {
			m.Truncated, m.Answer, m.Ns = true, nil, nil
		}
		return false
	})
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = []string{"udp://" + path.Addr} })
	a, err := d.Ask(t.Context(), hello)
	if err != nil || join(a.Versions) != "v1.0.1 v0.3.0" || a.Sources[0].Transport != "tcp" {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestSystem(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	host, _, err := net.SplitHostPort(tr.Addr)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	old := resolvConf
	resolvConf = file
	defer func() { resolvConf = old }()
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = []string{"system"} })
	if _, err := d.Ask(t.Context(), hello); err == nil || !strings.Contains(err.Error(), "finding the system's resolvers") {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("nameserver "+host+"\noptions timeout:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	servers, err := systemServers()
	if err != nil || len(servers) != 1 || servers[0] != host+":53" {
		t.Errorf("%v, %v", servers, err)
	}
}

// encrypted starts a resolver over TLS and one over HTTPS in front of the tree,
// with a certificate for example.com, and counts questions that are not padded.
func encrypted(t *testing.T, tr *zonetest.Tree) (dot, doh, ca string, unpadded *int) {
	unpadded = new(int)
	var mu sync.Mutex
	serve := func(wire []byte) []byte {
		q, m := new(dns.Msg), new(dns.Msg)
		if q.Unpack(wire) != nil {
			return nil
		}
		mu.Lock()
		if len(wire)%128 != 0 {
			*unpadded++
		}
		mu.Unlock()
		m.SetReply(q)
		tr.Mu.Lock()
		tr.Resolve(m)
		tr.Mu.Unlock()
		out, err := m.Pack()
		if err != nil {
			return nil
		}
		return out
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dns-query" || r.Method != http.MethodPost || r.ProtoMajor != 2 {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		wire, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/dns-message")
		w.Write(serve(wire))
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: srv.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					wire, err := readFrame(conn)
					if err != nil {
						return
					}
					writeFrame(conn, serve(wire))
				}
			}()
		}
	}()
	return ln.Addr().String(), srv.Listener.Addr().String(), ca, unpadded
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, b []byte) {
	w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
}

func TestEncrypted(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	dot, doh, ca, unpadded := encrypted(t, tr)
	for _, tc := range []struct{ source, transport, says string }{
		{"tls://" + dot + "#example.com", "tls", ""},
		{"tls://" + dot, "tls", ""}, // the certificate holds the address too
		{"tls://" + dot + "#dns.example", "", "certificate"},
		{"https://" + doh + "/dns-query#example.com", "https", ""},
		{"https://" + doh, "https", ""},
		{"https://" + doh + "/other#example.com", "", "answered 400"},
		{"https://" + doh + "/dns-query#dns.example", "", "certificate"},
		{"tls://" + tr.Addr, "", "TLS"},
	} {
		t.Run(tc.source, func(t *testing.T) {
			d := discoverer(t, tr, func(c *Config, _ *Options) {
				c.Sources, c.CA = []string{tc.source}, ca
				if tc.says != "" {
					c.Timeout = config.Duration(time.Second)
				}
			})
			a, err := d.Ask(t.Context(), hello)
			if tc.says != "" {
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tc.says)) && !strings.Contains(err.Error(), "in time") {
					t.Errorf("%v; want %q", err, tc.says)
				}
				return
			}
			if err != nil || a.Sources[0].Transport != tc.transport || join(a.Versions) != "v1.0.1 v0.3.0" {
				t.Errorf("%+v, %v", a, err)
			}
			for _, r := range d.Probe(t.Context()) {
				if r.Err != nil || r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
					t.Errorf("probe: %+v", r)
				}
			}
		})
	}
	// Probe's own question is not padded; those of Ask are.
	if *unpadded != 4 {
		t.Errorf("%d questions are not padded, want those of the 4 probes", *unpadded)
	}
}

// A cold client needs one round trip behind the connection's own, and a warm
// one one: everything that can be needed is asked at once. The server answers
// nothing before it has all questions, so whoever waited for an answer before
// asking on would wait in vain.
func TestRoundTrips(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	// Root, test., upkeep.test. and the zone: a DNSKEY each, a DS record below
	// the root; module, toolchain and status.
	rounds := []struct {
		what      string
		questions int
	}{{"cold", 4 + 3 + 3}, {"warm", 3}}
	conns := make(chan struct{}, 10)
	serve := func(conn net.Conn) {
		defer conn.Close()
		for _, round := range rounds {
			var answers [][]byte
			for range round.questions {
				wire, err := readFrame(conn)
				q, m := new(dns.Msg), new(dns.Msg)
				if err != nil || q.Unpack(wire) != nil {
					return
				}
				m.SetReply(q)
				tr.Mu.Lock()
				tr.Resolve(m)
				tr.Mu.Unlock()
				out, err := m.Pack()
				if err != nil {
					return
				}
				answers = append(answers, out)
			}
			for _, a := range answers {
				writeFrame(conn, a)
			}
		}
		io.Copy(io.Discard, conn)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- struct{}{}
			go serve(conn)
		}
	}()
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = []string{"tcp://" + ln.Addr().String()} })
	for _, round := range rounds {
		a, err := d.Ask(t.Context(), hello)
		if err != nil || a.Sources[0].Exchanges != round.questions {
			t.Fatalf("%s: %d questions, want %d at once; %v", round.what, a.Sources[0].Exchanges, round.questions, err)
		}
	}
	if len(conns) != 1 {
		t.Errorf("%d connections", len(conns))
	}
}

// What is asked tells nothing about who asks, and is hard to answer for
// somebody who does not see it: a new port, number and spelling each time.
func TestQuestions(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	path := tr.NewPath(t)
	var mu sync.Mutex
	ports, ids, n := map[string]bool{}, map[uint16]bool{}, 0
	path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
		mu.Lock()
		defer mu.Unlock()
		n++
		ports[w.RemoteAddr().String()], ids[q.Id] = true, true
		opt := q.IsEdns0()
		if opt == nil || !opt.Do() || opt.UDPSize() != udpSize || len(opt.Option) != 0 || !q.CheckingDisabled || !q.RecursionDesired {
			t.Errorf("question %v", q) // no client subnet, and what fails elsewhere is wanted too
		}
		return false
	})
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = []string{"udp://" + path.Addr} })
	if _, err := d.Ask(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if n < 10 || len(ports) < n/2 || len(ids) < n/2 {
		t.Errorf("%d questions from %d ports with %d numbers", n, len(ports), len(ids))
	}
}

func TestParseTarget(t *testing.T) {
	for _, tc := range []struct{ in, want, err string }{
		{"system", "system", ""},
		{"udp://192.0.2.1", "udp 192.0.2.1:53 192.0.2.1", ""},
		{"udp://[2001:db8::1]:5353", "udp [2001:db8::1]:5353 2001:db8::1", ""},
		{"tcp://dns.example/", "tcp dns.example:53 dns.example", ""},
		{"server://ns.example", "server ns.example:53 ns.example", ""},
		{"tls://192.0.2.1#dns.example", "tls 192.0.2.1:853 dns.example", ""},
		{"https://dns.example", "https dns.example:443 dns.example https://dns.example/dns-query", ""},
		{"https://192.0.2.1/q#dns.example", "https 192.0.2.1:443 dns.example https://192.0.2.1/q", ""},
		{"192.0.2.1", "", "is neither"},
		{"", "", "is neither"},
		{"udp://192.0.2.1:65536", "", "has the port 65536"},
		{"tls://192.0.2.1:0", "", "has the port 0"},
		{"http://dns.example", "", "must be udp"},
		{"udp://192.0.2.1#name", "", "certificate"},
		{"tls://192.0.2.1/path", "", "path"},
		{"https://user@dns.example/", "", "user"},
		{"https://dns.example/?dns=x", "", "query"},
	} {
		got, err := parseTarget(tc.in)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: %v; want %q", tc.in, err, tc.err)
			}
			continue
		}
		text := strings.TrimSpace(strings.Join([]string{got.scheme, got.addr, got.tlsName, got.url}, " "))
		if err != nil || text != tc.want {
			t.Errorf("%q: %q, %v", tc.in, text, err)
		}
	}
}
