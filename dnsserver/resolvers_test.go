package dnsserver

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/sockdir"
)

// freePort returns a port that was free a moment ago, for UDP too. On Linux its
// address is one of many, so that nobody else is given the port meanwhile.
func freePort(t *testing.T) (ip, port string) {
	t.Helper()
	ip = "127.0.0.1"
	if runtime.GOOS == "linux" {
		ip = net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(255)), byte(1+rand.IntN(254))).String()
	}
	return ip, freePortOf(t, ip)
}

func freePortOf(t *testing.T, ip string) string {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	}
	t.Fatal("no port is free for both UDP and TCP")
	return ""
}

// start runs a program in the foreground until the test ends, and shows what it
// said when the test failed.
func start(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Minute
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, out.String())
		}
	})
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// BIND's resolver wants port 53 of the servers it asks itself, so this test
// needs a loopback address whose port 53 is free, and the right to use it.
func TestNamed(t *testing.T) {
	named := tool(t, "named")
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{Workers: 1})
	t.Cleanup(s.Close)
	if _, err := s.Listen("127.0.53.1:53"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") != "" && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Fatal(err)
		}
		t.Skipf("port 53 can't be used: %v", err)
	}
	key := s.h.view.Load().zone.keys[0].Public
	for _, minimise := range []string{"strict", "off"} {
		t.Run("minimisation "+minimise, func(t *testing.T) {
			dir, port := t.TempDir(), freePortOf(t, "127.0.0.1") // it only listens on addresses that an interface has
			conf := write(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`
options { directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; session-keyfile none;
	recursion yes; dnssec-validation yes; qname-minimization %s; notify no; empty-zones-enable no; };
controls { };
trust-anchors { %q static-key %d %d %d %q; };
zone %q { type static-stub; server-addresses { 127.0.53.1; }; };
`, dir, port, minimise, key.Hdr.Name, key.Flags, key.Protocol, key.Algorithm, key.PublicKey, strings.TrimSuffix(testZone, ".")))
			start(t, dir, named, "-g", "-n", "1", "-c", conf)
			resolve(t, "127.0.0.1:"+port)
		})
	}
}

func TestKnotResolver(t *testing.T) {
	kresd := tool(t, "kresd")
	eachDenial(t, func(t *testing.T, s *Server, addr netip.AddrPort) {
		dir := t.TempDir()
		ip, port := freePort(t)
		key := s.h.view.Load().zone.keys[0]
		conf := write(t, filepath.Join(dir, "kresd.conf"), fmt.Sprintf(`
	net.listen('%s', %s, { kind = 'dns' })
	net.ipv6 = false
	cache.open(10 * MB, 'lmdb://%s')
	trust_anchors.remove('.')
	trust_anchors.add([[%s]])
	modules.unload('ta_update')
	modules.unload('ta_signal_query')
	modules.unload('priming')
	modules.unload('ta_sentinel')
	policy.add(policy.suffix(policy.FORWARD({'127.0.0.1@%d'}), {todname('%s')}))
	`, ip, port, filepath.Join(dir, "cache"), key.Public.String(), addr.Port(), testZone))
		start(t, dir, kresd, "-n", "-c", conf, dir)
		resolve(t, net.JoinHostPort(ip, port))
	})
}

func TestPowerDNSRecursor(t *testing.T) {
	recursor := tool(t, "pdns_recursor")
	eachDenial(t, func(t *testing.T, s *Server, addr netip.AddrPort) {
		dir := t.TempDir()
		ip, port := freePort(t)
		ds := s.h.view.Load().zone.keys[0].DS()
		write(t, filepath.Join(dir, "anchor.lua"), fmt.Sprintf("clearTA()\naddTA('%s', '%d %d %d %s')\n", testZone, ds.KeyTag, ds.Algorithm, ds.DigestType, ds.Digest))
		start(t, dir, recursor, "--config-dir="+dir, "--socket-dir="+sockdir.New(t), "--local-address="+ip, "--local-port="+port, "--daemon=no",
			"--dnssec=validate", "--lua-config-file="+filepath.Join(dir, "anchor.lua"), fmt.Sprintf("--forward-zones=%s=%s", testZone, addr),
			"--dont-query=", "--qname-minimization=yes", "--aggressive-nsec-cache-size=100000", "--security-poll-suffix=", "--threads=1", "--hint-file=no", "--log-common-errors=yes")
		resolve(t, net.JoinHostPort(ip, port))
	})
}

// dnsviz looks at the zone the way an expert does: no error and no warning.
func TestDNSViz(t *testing.T) {
	dnsviz := tool(t, "dnsviz")
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) { look(t, dnsviz, with(denial)) })
	}
}

func look(t *testing.T, dnsviz string, cfg ZoneConfig) {
	cfg.NameServers = cfg.NameServers[:1]
	cfg.NameServers[0].Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} // it asks there too
	s := NewServer(testHandler(t, cfg, testIndex()), ListenConfig{Workers: 1})
	t.Cleanup(s.Close)
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := write(t, filepath.Join(dir, "key"), s.h.view.Load().zone.keys[0].Public.String()+"\n")
	names := []string{testZone, moxName, "missing._.github.com.v0." + testZone, "mjl_2d._.github.com.v0." + testZone, "com.v0." + testZone, "ns0." + testZone}
	probe := filepath.Join(dir, "probe.json")
	run(t, dnsviz, append([]string{"probe", "-4", "-A", "-a", testZone, "-x", fmt.Sprintf("%s+:ns0.%s=%s", testZone, testZone, addr), "-R", "SOA,NS,A,TXT,DNSKEY,CAA,MX", "-o", probe}, names...)...)
	if !fileExists(probe) {
		t.Fatal("dnsviz probe wrote nothing")
	}
	out := run(t, dnsviz, "print", "-t", key, "-r", probe)
	for _, line := range strings.Split(out, "\n") {
		// Such lines stand for an error (E:), a warning (W:) and a bogus state.
		if strings.Contains(line, "E:") || strings.Contains(line, "W:") || strings.Contains(line, "[!") || strings.Contains(line, "[?") {
			t.Errorf("%s", line)
		}
	}
	if t.Failed() || !strings.Contains(out, "TXT") {
		t.Fatalf("dnsviz says:\n%s", out)
	}
}
