package dnsserver

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// tool returns the path of a program that is not part of Go. Without it the
// test is skipped, or fails when UPKEEP_TEST_FULL is set.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if p := filepath.Join(dir, name); fileExists(p) {
				return p
			}
		}
		if os.Getenv("UPKEEP_TEST_FULL") != "" {
			t.Fatalf("%s is not installed, and UPKEEP_TEST_FULL asks for all tests", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// eachDenial runs a test with a server for each way of denial.
func eachDenial(t *testing.T, f func(t *testing.T, s *Server, addr netip.AddrPort)) {
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) {
			s := NewServer(testHandler(t, with(denial), testIndex()), ListenConfig{})
			t.Cleanup(s.Close)
			addr, err := s.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			f(t, s, addr)
		})
	}
}

func fileExists(p string) bool { _, err := os.Stat(p); return err == nil }

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A probe is a question and what a validating resolver must find.
type probe struct {
	name   string
	typ    string
	answer bool
}

// probes covers what exists, what doesn't, empty non-terminals and wrong
// types, at the apex and below.
func probes() []probe {
	return []probe{
		{moxName, "TXT", true}, {"mOx.MjL_2d._.GitHub.com.v0." + testZone, "TXT", true},
		{moxName, "A", false}, {moxName, "DS", false}, {moxName, "NS", false}, {moxName, "MX", false},
		{"mjl_2d._.github.com.v0." + testZone, "TXT", false}, {"_.github.com.v0." + testZone, "TXT", false},
		{"github.com.v0." + testZone, "TXT", false}, {"com.v0." + testZone, "A", false}, {"v0." + testZone, "DS", false},
		{"gocloud.dev.v0." + testZone, "TXT", true}, {"v2.c.b.a._.github.com.v0." + testZone, "TXT", true},
		{"toml._42urnt_53ushi._.github.com.v0." + testZone, "TXT", true},
		{"many._.example.org.v0." + testZone, "TXT", true},
		{"missing._.github.com.v0." + testZone, "TXT", false}, {"x." + moxName, "TXT", false}, {"missing." + testZone, "A", false},
		{"*." + testZone, "TXT", false}, {"*._.github.com.v0." + testZone, "TXT", false}, {"x.*.www." + testZone, "A", false},
		{"toolchain.v0." + testZone, "TXT", true}, {"status.v0." + testZone, "TXT", true},
		{testZone, "SOA", true}, {testZone, "NS", true}, {testZone, "DNSKEY", true}, {testZone, "CDS", true}, {testZone, "CDNSKEY", true},
		{testZone, "CAA", true}, {testZone, "MX", true}, {testZone, "TXT", false}, {testZone, "A", false},
		{"ns0." + testZone, "A", true}, {"ns0." + testZone, "AAAA", true}, {"ns0." + testZone, "DS", false}, {"ns0." + testZone, "TXT", false},
		{"a.b.c." + testZone, "TXT", true}, {"b.c." + testZone, "TXT", false},
		{strings.Repeat("d", 40) + "." + strings.Repeat("c", 63) + "._." + strings.Repeat("b", 50) + "." + strings.Repeat("a", 50) + ".v0." + testZone, "TXT", false},
	}
}

func anchorFile(t *testing.T, s *Server) string {
	file := filepath.Join(t.TempDir(), "anchor")
	var b strings.Builder
	b.WriteString("trust-anchors {\n")
	for _, k := range s.h.view.Load().zone.keys {
		fmt.Fprintf(&b, "%q static-key %d %d %d %q;\n", k.Public.Hdr.Name, k.Public.Flags, k.Public.Protocol, k.Public.Algorithm, k.Public.PublicKey)
	}
	b.WriteString("};\n")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func hostPort(a netip.AddrPort) (host, port string) {
	return a.Addr().String(), fmt.Sprint(a.Port())
}

func TestDelv(t *testing.T) {
	delv := tool(t, "delv")
	eachDenial(t, func(t *testing.T, s *Server, addr netip.AddrPort) {
		host, port := hostPort(addr)
		anchor := anchorFile(t, s)
		for i, p := range probes() {
			if s.h.view.Load().chain != nil && (p.answer || i%2 == 0) {
				continue // as in the other mode; and it is a slow program
			}
			out := run(t, delv, "@"+host, "-p", port, "-a", anchor, "+root="+testZone, "+nomulti", p.name, p.typ)
			want := "; fully validated"
			if !p.answer {
				want = "; negative response, fully validated"
			}
			if !strings.Contains("\n"+out, "\n"+want) {
				t.Errorf("%s %s: want %q\n%s", p.name, p.typ, want, out)
			}
		}
	})
}

func TestDig(t *testing.T) {
	dig := tool(t, "dig")
	_, addr := testServer(t, ListenConfig{}, "127.0.0.1:0")
	host, port := hostPort(addr)
	all := [][]string{{"+noedns"}, {"+dnssec", "+nsid", "+cookie"}, {"+tcp", "+keepalive"}, {"+ednsflags=0x80", "+ednsopt=100"}, {"+bufsize=512", "+dnssec"}}
	for i, p := range probes() {
		use := all
		if i > 0 {
			use = all[i%len(all):][:1]
		}
		for _, flags := range use {
			out := run(t, dig, append([]string{"@" + host, "-p", port, p.name, p.typ, "+norec", "+tries=1", "+time=60"}, flags...)...)
			if !strings.Contains(out, "status: NOERROR") && !strings.Contains(out, "status: NXDOMAIN") ||
				strings.Contains(out, "ANSWER: 0") == p.answer || strings.Contains(out, "WARNING") || strings.Contains(out, "alformed") {
				t.Errorf("%s %s %v:\n%s", p.name, p.typ, flags, out)
			}
		}
	}
}

func TestKdig(t *testing.T) {
	kdig := tool(t, "kdig")
	eachDenial(t, func(t *testing.T, _ *Server, addr netip.AddrPort) {
		host, port := hostPort(addr)
		for _, p := range probes() {
			out := run(t, kdig, "@"+host, "-p", port, p.name, p.typ, "+norec", "+dnssec", "+nsid", "+time=60")
			if !strings.Contains(out, "status: NOERROR") && !strings.Contains(out, "status: NXDOMAIN") || strings.Contains(out, "WARNING") || strings.Contains(out, "ANSWER: 0;") == p.answer {
				t.Errorf("%s %s:\n%s", p.name, p.typ, out)
			}
		}
	})
}

func TestDrill(t *testing.T) {
	drill := tool(t, "drill")
	eachDenial(t, func(t *testing.T, s *Server, addr netip.AddrPort) {
		host, port := hostPort(addr)
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(s.h.view.Load().zone.keys[0].Public.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range probes() {
			out := run(t, drill, "-S", "-k", file, "-p", port, "@"+host, p.name, p.typ)
			if !strings.Contains(out, "Chase successful") {
				t.Errorf("%s %s:\n%s", p.name, p.typ, out)
			}
		}
	})
}

// A validating resolver in front, with a private trust anchor, strict about
// query name minimisation, aggressive with denials and with mixed case.
func TestUnbound(t *testing.T) {
	unbound := tool(t, "unbound")
	eachDenial(t, func(t *testing.T, s *Server, addr netip.AddrPort) {
		_, port := hostPort(addr)
		for _, mode := range []struct{ aggressive, strict string }{{"yes", "yes"}, {"no", "yes"}, {"yes", "no"}} {
			t.Run("aggressive "+mode.aggressive+" strict "+mode.strict, func(t *testing.T) {
				dir := t.TempDir()
				ip, own := freePort(t)
				ds := strings.ReplaceAll(s.h.view.Load().zone.keys[0].DS().String(), "\t", " ")
				conf := fmt.Sprintf(`server:
	  directory: %q
	  chroot: ""
	  username: ""
	  use-syslog: no
	  logfile: %q
	  pidfile: ""
	  interface: %s@%s
	  do-ip6: no
	  do-not-query-localhost: no
	  trust-anchor: %q
	  val-log-level: 2
	  log-servfail: yes
	  aggressive-nsec: %s
	  qname-minimisation: yes
	  qname-minimisation-strict: %s
	  harden-below-nxdomain: yes
	  use-caps-for-id: yes
	  root-hints: %q
	  module-config: "validator iterator"
	  num-threads: 1
	  local-zone: "test." transparent
	remote-control:
	  control-enable: no
	stub-zone:
	  name: %q
	  stub-addr: 127.0.0.1@%s
	  stub-prime: no
	`, dir, filepath.Join(dir, "log"), ip, own, ds, mode.aggressive, mode.strict, filepath.Join(dir, "hints"), testZone, port)
				os.WriteFile(filepath.Join(dir, "hints"), []byte(". 3600 NS x.invalid.\nx.invalid. 3600 A 127.0.0.99\n"), 0o600)
				os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600)
				cmd := exec.Command(unbound, "-d", "-c", filepath.Join(dir, "conf"))
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Minute
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() {
					cmd.Process.Kill()
					cmd.Wait()
					if t.Failed() {
						log, _ := os.ReadFile(filepath.Join(dir, "log"))
						t.Logf("%s\n%s", out.String(), log)
					}
				}()
				resolve(t, net.JoinHostPort(ip, own))
			})
		}
	})
}

// resolve asks a resolver everything twice and wants validated answers.
func resolve(t *testing.T, resolver string) {
	t.Helper()
	c := dns.Client{Timeout: time.Minute}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, _, err := c.Exchange(question(testZone, dns.TypeSOA, true), resolver); err == nil {
			break
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatal("the resolver does not start")
		}
	}
	for range 2 {
		for _, p := range probes() {
			m := question(p.name, dns.StringToType[p.typ], true)
			r, _, err := c.Exchange(m, resolver)
			// On a busy machine a resolver may tire of waiting for its answers; what
			// it finds bogus it does when it is asked again, too.
			for tries := 0; tries < 5 && (err != nil || r.Rcode == dns.RcodeServerFailure); tries++ {
				time.Sleep(time.Second)
				r, _, err = c.Exchange(m, resolver)
			}
			if err != nil {
				t.Errorf("%s %s: %v", p.name, p.typ, err)
				continue
			}
			if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError || !r.AuthenticatedData || (len(r.Answer) > 0) != p.answer {
				t.Errorf("%s %s: %v", p.name, p.typ, r)
			}
		}
	}
}
