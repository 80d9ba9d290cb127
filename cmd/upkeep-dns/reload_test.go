package main

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/web/acme/acmetest"
)

// A reloading is a server whose configuration changes while it runs.
type reloading struct {
	*server
	t    *testing.T
	file string
	base string // of the configuration
	zone string
	done int // reloads so far, good or bad
}

func startReloading(t *testing.T, top, more string, args ...string) *reloading {
	t.Helper()
	o := newOrigin(t)
	keys, _ := keygen(t)
	dir := t.TempDir()
	r := &reloading{t: t, file: filepath.Join(dir, "dns.toml")}
	r.base = fmt.Sprintf("keys = %q\nstate = %q\n", keys, filepath.Join(dir, "state"))
	r.zone = fmt.Sprintf("[zone]\nname = %q\nrecords = ['x TXT one']\n[[zone.nameserver]]\nname = 'ns0'\naddresses = ['127.0.0.1']\n[log]\nproxy = %q\ndatabase = %q\n", zone, o.URL, o.key)
	r.write(top, more)
	r.server = serveProcess(t, append([]string{"-config", r.file}, args...)...)
	return r
}

func (r *reloading) write(top, more string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(top+"\n"+r.base+r.zone+more+"\n"), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// reload says what the server says of a configuration: "" when it takes it.
func (r *reloading) reload(top, more string) string {
	r.t.Helper()
	r.write(top, more)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	var last string
	r.await("word of the configuration", func() bool {
		n := 0
		for line := range strings.Lines(r.stderr.String()) {
			if bad := strings.Contains(line, "nothing was changed"); bad || strings.Contains(line, "were read again") {
				n++
				last = ""
				if bad {
					last = line
				}
			}
		}
		if n <= r.done {
			return false
		}
		r.done = n
		return true
	})
	return last
}

func (r *reloading) await(what string, done func() bool) {
	r.t.Helper()
	for start := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 2*time.Minute {
			r.t.Fatalf("%s: not after 2 minutes\n%s", what, r.stderr)
		}
	}
}

// answers asks an address over UDP and TCP.
func (r *reloading) answers(addr string) bool {
	m := new(dns.Msg)
	m.SetQuestion("x."+zone, dns.TypeTXT)
	for _, network := range []string{"udp", "tcp"} {
		a, _, err := (&dns.Client{Net: network, Timeout: 30 * time.Second}).Exchange(m, addr)
		if err != nil || len(a.Answer) != 1 {
			return false
		}
	}
	return true
}

// freeAddr is an address whose port was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ownIP()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ownIP is an address of this machine, on Linux one of many, where nobody else
// is given a port by chance.
func ownIP() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(255)), byte(1+rand.IntN(254))).String()
}

// Addresses come and go without a restart; when one can't be had, nothing changes.
func TestReloadListeners(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := startReloading(t, "listen = ['127.0.0.1:0']", "")
	second := ""
	for tries := 0; ; tries++ { // another program may take the port first
		second = freeAddr(t)
		if said := r.reload(fmt.Sprintf("listen = ['127.0.0.1:0', %q]", second), ""); said == "" {
			break
		} else if tries == 10 || !strings.Contains(said, "in use") {
			t.Fatal(said)
		}
	}
	if !r.answers(r.dns) || !r.answers(second) {
		t.Error("the two addresses don't both answer")
	}
	// One that is taken: also the one that would be new is closed again, and the
	// one that would go stays.
	third := freeAddr(t)
	if said := r.reload(fmt.Sprintf("listen = [%q, %q, %q]", second, third, taken.Addr()), ""); !strings.Contains(said, "in use") {
		t.Errorf("a port in use: %q", said)
	}
	if !r.answers(r.dns) || !r.answers(second) {
		t.Error("after a reload that failed the two addresses don't both answer")
	}
	r.await("the end of the listener that was not to be", func() bool { return !r.answers(third) })
	if said := r.reload(fmt.Sprintf("listen = [%q]", second), ""); said != "" {
		t.Fatal(said)
	}
	if !r.answers(second) {
		t.Error("the address that stays does not answer")
	}
	r.await("the end of the first listener", func() bool { return !r.answers(r.dns) })
	if said := r.reload(fmt.Sprintf("listen = ['systemd', %q]", second), ""); !strings.Contains(said, "systemd") {
		t.Errorf("sockets of systemd's in a reload: %q", said)
	}
}

// Limits of connections and answers hold from the reload on.
func TestReloadLimits(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	cert, priv := certificate(t, web, t.TempDir())
	const top = "listen = ['127.0.0.1:0']"
	r := startReloading(t, top, "[limits]\ntcp_idle = '1h'\ntcp_connections_per_client = 100", "-doh", "127.0.0.1:0", "-certificate", cert, "-certificate-key", priv)
	open := func() (c net.Conn, answered bool) {
		c, err := net.Dial("tcp", r.dns)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		m := new(dns.Msg)
		m.SetQuestion("x."+zone, dns.TypeTXT)
		dc := &dns.Conn{Conn: c}
		c.SetDeadline(time.Now().Add(time.Minute))
		if dc.WriteMsg(m) != nil {
			return c, false
		}
		_, err = dc.ReadMsg()
		return c, err == nil
	}
	var conns []net.Conn
	for range 3 {
		c, ok := open()
		if !ok {
			t.Fatal("a connection within the limit is not answered")
		}
		conns = append(conns, c)
	}
	if said := r.reload(top, "[limits]\ntcp_idle = '1h'\ntcp_connections_per_client = 3\nanswers = 10"); !strings.Contains(said, "answers between") {
		t.Errorf("bad limits: %q", said)
	}
	if said := r.reload(top, "[limits]\ntcp_idle = '1h'\ntcp_connections_per_client = 3\nanswers = 4096\n[limits.rate]\nanswers_per_second = 1\nslip = 1"); said != "" {
		t.Fatal(said)
	}
	if _, ok := open(); ok {
		t.Error("a connection above the new limit is answered")
	}
	u, err := url.Parse(r.doh)
	if err != nil {
		t.Fatal(err)
	}
	https := func() bool { // until the handshake
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if https() {
		t.Error("a connection for HTTPS above the limit of all is served")
	}
	for _, c := range conns {
		c.Close()
	}
	r.await("a connection below the new limit", func() bool { _, ok := open(); return ok })
	r.await("one for HTTPS", https)
	truncated := false
	for range 20 {
		m := new(dns.Msg)
		m.SetQuestion("x."+zone, dns.TypeTXT)
		a, _, err := (&dns.Client{Timeout: 30 * time.Second}).Exchange(m, r.dns)
		if err != nil {
			t.Fatal(err)
		}
		truncated = truncated || a.Truncated
	}
	if !truncated {
		t.Error("the new rate is not kept to")
	}
}

// The certificate comes from files first, after a reload from an authority.
func TestReloadACME(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	cert, priv := certificate(t, web, t.TempDir())
	const top = "listen = ['127.0.0.1:0']"
	const addrs = "\ndot = '127.0.0.1:0'\ndoh = '127.0.0.1:0'\n"
	r := startReloading(t, top, fmt.Sprintf("[tls]\ncertificate = %q\nkey = %q", cert, priv)+addrs, "-doh", "127.0.0.1:0")
	u, err := url.Parse(r.doh)
	if err != nil {
		t.Fatal(err)
	}
	ca := acmetest.New(t, u.Host)
	acme := fmt.Sprintf("[tls]\nacme = %q\nacme_roots = %q\nnames = ['ns0.upkeep.test']", ca.URL, ca.Roots) + addrs
	if said := r.reload(top, strings.Replace(acme, "names", "certificate = 'x'\nnames", 1)); !strings.Contains(said, "exclude") {
		t.Errorf("both: %q", said)
	}
	if said := r.reload(top, acme); said != "" {
		t.Fatal(said)
	}
	m := new(dns.Msg)
	m.SetQuestion("x."+zone, dns.TypeTXT)
	conf := &tls.Config{RootCAs: ca.Pool, ServerName: "ns0.upkeep.test"}
	r.await("an answer under the authority's certificate", func() bool {
		a, _, err := (&dns.Client{Net: "tcp-tls", TLSConfig: conf, Timeout: 30 * time.Second}).Exchange(m, r.dot)
		return err == nil && len(a.Answer) == 1
	})
	if ca.Issued() != 1 || len(ca.Failures()) > 0 {
		t.Errorf("%d certificates, %q", ca.Issued(), ca.Failures())
	}
}
