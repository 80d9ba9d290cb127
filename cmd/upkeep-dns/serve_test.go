package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog"
)

// From the log to signed answers, in both modes: what is published is seen at
// the next poll, SIGKILL loses nothing, and without the log the stored index
// answers.
func TestServe(t *testing.T) {
	for _, mode := range []string{"follow", "watch"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			o.publish(t, "example.org/hello", "v1.0.0")
			o.publish(t, "example.org/other", "v0.1.0")
			keys, key := keygen(t)
			args := []string{"-zone", zone, "-keys", keys, "-state", filepath.Join(t.TempDir(), "state"), "-listen", "127.0.0.1:0", "-http", "127.0.0.1:0",
				"-ns", "ns0=127.0.0.1", "-interval", "200ms", "-proxy", o.URL, "-database", o.key, "-mode", mode}
			if mode == "watch" {
				args = append(args, "-watch", "example.org/hello", "-watch", "example.org/other")
			}
			denials := filepath.Join(t.TempDir(), "dns.toml")
			if err := os.WriteFile(denials, []byte("[zone]\ndenial = 'nsec'\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if mode == "follow" {
				args = append(args, "-config", denials)
			}
			hello := moduleName(t, "example.org/hello")
			s := serveProcess(t, args...)
			s.await(t, key, hello, "v=v1.0.0 t=")
			s.await(t, key, moduleName(t, "example.org/other"), "v=v0.1.0 t=")
			o.publish(t, "example.org/hello", "v1.0.1")
			start := time.Now()
			s.await(t, key, hello, "v=v1.0.1 t=")
			t.Logf("published, and seen after %s", time.Since(start).Round(time.Millisecond))
			if txt, _ := s.ask(t, key, name.Status(zone)); !strings.HasPrefix(txt, "n=3 h=") {
				t.Errorf("status %q", txt)
			}
			missing := map[string]int{"follow": dns.RcodeNameError, "watch": dns.RcodeSuccess}[mode] // compact denial has no code
			if txt, rcode := s.ask(t, key, moduleName(t, "example.org/missing")); txt != "" || rcode != missing {
				t.Errorf("missing module: %q, %s", txt, dns.RcodeToString[rcode])
			}
			metrics := get(t, s.http+"metrics")
			for _, want := range []string{`upkeep_dns_log_size 3`, `upkeep_dns_queries_total{transport="udp"}`, `upkeep_dns_stale 0`} {
				if !strings.Contains(metrics, want) {
					t.Errorf("metrics without %s", want)
				}
			}
			if page := get(t, s.http); !strings.Contains(page, "l.upkeep.test") {
				t.Errorf("page of the index:\n%s", page)
			}
			// Killed, and the log is away: the stored index answers.
			s.kill()
			o.setFail(true)
			s = serveProcess(t, args...)
			if txt, _ := s.ask(t, key, hello); !strings.HasPrefix(txt, "v=v1.0.1 t=") {
				t.Errorf("after SIGKILL, without the log: %q", txt)
			}
			// The log comes back.
			o.publish(t, "example.org/hello", "v1.1.0")
			o.setFail(false)
			s.await(t, key, hello, "v=v1.1.0 t=")
			// The index can be read while the server has it open.
			if out, errs, code := upkeepDNS(t, "dump", "-state", args[5], "-mode", mode); code != 0 || !strings.Contains(out, "\nexample.org/hello v1.1.0 ") {
				t.Errorf("dump beside the server: %d\n%s%s", code, out, errs)
			}
			s.cmd.Process.Signal(syscall.SIGTERM)
			if err := s.cmd.Wait(); err != nil {
				t.Errorf("after SIGTERM: %v\n%s", err, s.stderr)
			}
			out, errs, code := upkeepDNS(t, "lookup", "-zone", zone, "-state", args[5], "example.org/hello", "example.org/none")
			if code != 1 || !strings.Contains(out, "v1.1.0") || !strings.Contains(out, "example.org/none  is not in the index") {
				t.Errorf("lookup: %d\n%s%s", code, out, errs)
			}
			if mode == "watch" { // a module that is no longer watched is not answered
				s = serveProcess(t, args[:len(args)-2]...)
				s.await(t, key, hello, "v=v1.1.0 t=")
				if txt, rcode := s.ask(t, key, moduleName(t, "example.org/other")); txt != "" || rcode != missing {
					t.Errorf("module that is no longer watched: %q, %s", txt, dns.RcodeToString[rcode])
				}
			}
		})
	}
}

// Reading the log without serving, twice: the same bytes.
func TestFollowAndDump(t *testing.T) {
	o := newOrigin(t)
	for i := range 300 {
		o.publish(t, fmt.Sprintf("example.org/m%d", i%50), fmt.Sprintf("v1.%d.0", i))
	}
	var dumps []string
	for range 2 {
		state := filepath.Join(t.TempDir(), "state")
		out, errs, code := upkeepDNS(t, "follow", "-once", "-state", state, "-proxy", o.URL, "-database", o.key)
		if code != 0 || out != "300 records\n" {
			t.Fatalf("follow: %s%s", out, errs)
		}
		out, errs, code = upkeepDNS(t, "dump", "-state", state)
		if code != 0 {
			t.Fatalf("dump: %s", errs)
		}
		dumps = append(dumps, out)
	}
	if dumps[0] != dumps[1] || strings.Count(dumps[0], "\nexample.org/m") < 50 || !strings.Contains(dumps[0], "size 300\n") {
		t.Errorf("dumps:\n%s\n%s", dumps[0], dumps[1])
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// certificate writes the files of a certificate and its key.
func certificate(t *testing.T, web *httptest.Server, dir string) (cert, priv string) {
	t.Helper()
	cert, priv = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(web.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o644),
		os.WriteFile(priv, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return cert, priv
}

// A port that is taken is named, with the flag that chooses another.
func TestPortsInUse(t *testing.T) {
	keys, _ := keygen(t)
	dir := t.TempDir()
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	cert, priv := certificate(t, web, dir)
	tcp := web.Listener.Addr().String()
	conn, err := net.ListenPacket("udp", ownIP()+":0") // nobody else has the port over TCP there
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	udp := conn.LocalAddr().String()
	for _, tc := range []struct{ flag, addr, network string }{
		{"-listen", udp, "UDP"}, {"-listen", tcp, "TCP"}, {"-http", tcp, "TCP"}, {"-dot", tcp, "TCP"}, {"-doh", tcp, "TCP"}, {"-doq", udp, "UDP"},
	} {
		_, errs, code := upkeepDNS(t, "serve", "-zone", zone, "-keys", keys, "-state", filepath.Join(dir, "state"), "-ns", "ns0=127.0.0.1", "-proxy", "http://127.0.0.1:1",
			"-database", "sum.golang.org", "-listen", "127.0.0.1:0", "-certificate", cert, "-certificate-key", priv, tc.flag, tc.addr)
		if code == 0 || !strings.Contains(errs, tc.network+" port "+tc.addr+" is in use") || !strings.Contains(errs, "with "+tc.flag+",") {
			t.Errorf("%s %s: exit %d: %s", tc.flag, tc.addr, code, errs)
		}
	}
}

// Encrypted transports with the certificate's files.
func TestEncrypted(t *testing.T) {
	o := newOrigin(t)
	o.publish(t, "example.org/hello", "v1.0.0")
	keys, key := keygen(t)
	dir := t.TempDir()
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	cert, priv := certificate(t, web, dir)
	secrets := filepath.Join(dir, "cookies")
	os.WriteFile(secrets, []byte(strings.Repeat("0f", 16)+"\n"), 0o600)
	file := filepath.Join(dir, "dns.toml")
	os.WriteFile(file, []byte("[limits]\ncookie_secrets = '"+secrets+"'\n"), 0o644)
	s := serveProcess(t, "-config", file, "-zone", zone, "-keys", keys, "-state", dir, "-listen", "127.0.0.1:0", "-ns", "ns0=127.0.0.1", "-interval", "200ms",
		"-proxy", o.URL, "-database", o.key, "-dot", "127.0.0.1:0", "-doh", "127.0.0.1:0", "-certificate", cert, "-certificate-key", priv, "-http", "127.0.0.1:0")
	hello := moduleName(t, "example.org/hello")
	s.await(t, key, hello, "v=v1.0.0")
	m := new(dns.Msg)
	m.SetQuestion(hello, dns.TypeTXT)
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	config := &tls.Config{RootCAs: pool, ServerName: "example.com"}
	r, _, err := (&dns.Client{Net: "tcp-tls", TLSConfig: config, Timeout: time.Minute}).Exchange(m, s.dot)
	if err != nil || len(r.Answer) != 1 {
		t.Errorf("DoT: %v, %v", r, err)
	}
	packet, _ := m.Pack()
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	resp, err := hc.Post(s.doh, "application/dns-message", bytes.NewReader(packet))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if err := r.Unpack(body); err != nil || len(r.Answer) != 1 || resp.ProtoMajor != 2 {
		t.Errorf("DoH: %v, %v, %v", resp, r, err)
	}
}

// A log signed by another key than the configured one is not believed.
func TestWrongKey(t *testing.T) {
	o := newOrigin(t)
	o.publish(t, "example.org/hello", "v1.0.0")
	_, other, err := tlog.GenerateKey("sum.upkeep.test")
	if err != nil {
		t.Fatal(err)
	}
	keys, key := keygen(t)
	s := serveProcess(t, "-zone", zone, "-keys", keys, "-state", t.TempDir(), "-listen", "127.0.0.1:0", "-ns", "ns0=127.0.0.1",
		"-interval", "200ms", "-proxy", o.URL, "-database", other, "-watch", "example.org/hello")
	for start := time.Now(); !strings.Contains(s.stderr.String(), "signature"); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("no word of a wrong signature: %s", s.stderr)
		}
	}
	if txt, rcode := s.ask(t, key, moduleName(t, "example.org/hello")); txt != "" || rcode != dns.RcodeServerFailure {
		t.Errorf("%q, %s; want SERVFAIL", txt, dns.RcodeToString[rcode])
	}
}

func TestReload(t *testing.T) {
	o := newOrigin(t)
	keys, _ := keygen(t)
	file := filepath.Join(t.TempDir(), "dns.toml")
	write := func(records string) {
		text := fmt.Sprintf("listen = ['127.0.0.1:0']\nkeys = %q\nstate = %q\n[zone]\nname = %q\nrecords = [%s]\n[[zone.nameserver]]\nname = 'ns0'\naddresses = ['127.0.0.1']\n[log]\nproxy = %q\ndatabase = %q\n",
			keys, filepath.Join(filepath.Dir(file), "state"), zone, records, o.URL, o.key)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("'x TXT one'")
	s := serveProcess(t, "-config", file)
	ask := func() string {
		m := new(dns.Msg)
		m.SetQuestion("x."+zone, dns.TypeTXT)
		r, _, err := (&dns.Client{Timeout: time.Minute}).Exchange(m, s.dns)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, rr := range r.Answer {
			texts = append(texts, rr.(*dns.TXT).Txt...)
		}
		return strings.Join(texts, " ")
	}
	await := func(what string, done func() bool) {
		t.Helper()
		for start := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
			if time.Since(start) > 2*time.Minute {
				t.Fatalf("%s: not after 2 minutes\n%s", what, s.stderr)
			}
		}
	}
	if got := ask(); got != "one" {
		t.Fatalf("%q", got)
	}
	write("'x CNAME y'")
	s.cmd.Process.Signal(syscall.SIGHUP)
	await("the error", func() bool { return strings.Contains(s.stderr.String(), "nothing was changed") })
	if got := ask(); got != "one" {
		t.Errorf("after a bad configuration: %q", got)
	}
	write("'x TXT two'")
	s.cmd.Process.Signal(syscall.SIGHUP)
	await("the new record", func() bool { return ask() == "two" })
}
