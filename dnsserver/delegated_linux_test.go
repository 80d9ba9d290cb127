package dnsserver

import (
	"crypto"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"example.org/upkeep/internal/sockdir"
)

// Resolvers that know nothing but a root find the zone by its delegation and
// validate it by its DS record. They want port 53 everywhere, so the test runs
// itself again in a network namespace of its own, where nothing else is.
func TestDelegated(t *testing.T) {
	if os.Getenv("UPKEEP_TEST_NETNS") == "" {
		inNamespace(t)
		return
	}
	loopbackUp(t)
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) { delegated(t, denial) })
	}
}

func inNamespace(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_NETNS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		if os.Getenv("UPKEEP_TEST_FULL") != "" && os.Getuid() == 0 {
			t.Fatalf("a network namespace can't be made, and UPKEEP_TEST_FULL asks for all tests: %v", err)
		}
		t.Skipf("a network namespace can't be made: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "--- SKIP") || strings.Contains(line, "is not installed") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func loopbackUp(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

const rootAddr = "127.0.0.2"

// The zone's name servers: one program. Nobody asks over IPv6, since the namespace
// has no such route.
var zoneServers = []NameServer{
	{Name: "ns0", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("2001:db8::1")}},
	{Name: "ns1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.8"), netip.MustParseAddr("2001:db8::2")}},
}

func delegated(t *testing.T, denial string) {
	cfg := with(denial)
	cfg.NameServers = zoneServers
	s := NewServer(testHandler(t, cfg, testIndex()), ListenConfig{Workers: 1})
	defer s.Close()
	for _, ns := range zoneServers {
		if _, err := s.Listen(netip.AddrPortFrom(ns.Addresses[0], 53).String()); err != nil {
			t.Fatal(err)
		}
	}
	root := newRoot(t, s.h.view.Load().zone.keys[0].DS())
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		srv := &dns.Server{Addr: rootAddr + ":53", Net: network, Handler: root, NotifyStartedFunc: func() { close(started) }}
		ended := make(chan error, 1)
		go func() { ended <- srv.ListenAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			t.Fatal(err)
		}
		defer srv.Shutdown()
	}
	ds := root.key.ToDS(dns.SHA256)
	dsText := fmt.Sprintf("%d %d %d %s", ds.KeyTag, ds.Algorithm, ds.DigestType, ds.Digest)
	hints := write(t, filepath.Join(t.TempDir(), "hints"), ". 3600 NS a.root.\na.root. 3600 A "+rootAddr+"\n")
	t.Run("zonemaster", func(t *testing.T) { zonemaster(t, hints) })
	t.Run("unbound", func(t *testing.T) {
		unbound, dir := tool(t, "unbound"), t.TempDir()
		conf := write(t, filepath.Join(dir, "conf"), fmt.Sprintf(`server:
  directory: %q
  chroot: ""
  username: ""
  use-syslog: no
  logfile: ""
  pidfile: ""
  interface: 127.0.0.4@53
  access-control: 127.0.0.0/8 allow
  do-ip6: no
  do-not-query-localhost: no
  root-hints: %q
  trust-anchor: ". IN DS %s"
  aggressive-nsec: yes
  qname-minimisation: yes
  qname-minimisation-strict: yes
  harden-below-nxdomain: yes
  harden-referral-path: yes
  use-caps-for-id: yes
  module-config: "validator iterator"
  num-threads: 1
  local-zone: "test." transparent
remote-control:
  control-enable: no
`, dir, hints, dsText))
		start(t, dir, unbound, "-d", "-c", conf)
		resolve(t, "127.0.0.4:53")
	})
	t.Run("BIND", func(t *testing.T) {
		named, dir := tool(t, "named"), t.TempDir()
		conf := write(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`
options { directory %q; listen-on port 53 { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; session-keyfile none;
	recursion yes; dnssec-validation yes; qname-minimization strict; synth-from-dnssec yes; notify no; empty-zones-enable no; };
controls { };
trust-anchors { "." static-key %d %d %d %q; };
zone "." { type hint; file %q; };
`, dir, root.key.Flags, root.key.Protocol, root.key.Algorithm, root.key.PublicKey, hints))
		start(t, dir, named, "-4", "-g", "-n", "1", "-c", conf)
		resolve(t, "127.0.0.1:53") // it only listens on addresses that an interface has
	})
	t.Run("Knot Resolver", func(t *testing.T) {
		kresd, dir := tool(t, "kresd"), t.TempDir()
		conf := write(t, filepath.Join(dir, "kresd.conf"), fmt.Sprintf(`
net.listen('127.0.0.6', 53, { kind = 'dns' })
net.ipv6 = false
cache.open(10 * MB, 'lmdb://%s')
modules = { 'hints > iterate' }
hints.root({ ['a.root.'] = '%s' })
trust_anchors.remove('.')
trust_anchors.add([[%s]])
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('priming')
policy.special_names = {}
`, filepath.Join(dir, "cache"), rootAddr, root.key.String()))
		start(t, dir, kresd, "-n", "-c", conf, dir)
		resolve(t, "127.0.0.6:53")
	})
	t.Run("PowerDNS Recursor", func(t *testing.T) {
		recursor, dir := tool(t, "pdns_recursor"), t.TempDir()
		lua := write(t, filepath.Join(dir, "anchor.lua"), fmt.Sprintf("clearTA()\naddTA('.', '%s')\n", dsText))
		start(t, dir, recursor, "--config-dir="+dir, "--socket-dir="+sockdir.New(t), "--local-address=127.0.0.7", "--local-port=53", "--daemon=no", "--hint-file="+hints,
			"--dnssec=validate", "--lua-config-file="+lua, "--dont-query=", "--qname-minimization=yes", "--aggressive-nsec-cache-size=100000",
			"--security-poll-suffix=", "--threads=1", "--serve-rfc1918=no", "--log-common-errors=yes")
		resolve(t, "127.0.0.7:53")
	})
}

// A root is a signed root zone with one delegation, in full just enough for a
// resolver to be content.
type root struct {
	key  *dns.DNSKEY
	sets map[string]map[uint16][]dns.RR // signed, by name and type

	referral, glue []dns.RR
}

// In canonical order.
var rootNames = []string{".", "a.root.", testZone}

func newRoot(t *testing.T, ds *dns.DS) *root {
	t.Helper()
	r := &root{key: &dns.DNSKEY{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256},
		sets: map[string]map[uint16][]dns.RR{}}
	priv, err := r.key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	records := []dns.RR{r.key, ds}
	for _, text := range []string{". 3600 SOA a.root. hostmaster.root. 1 3600 600 86400 60", ". 3600 NS a.root.", "a.root. 3600 A " + rootAddr,
		". 60 NSEC a.root. NS SOA RRSIG NSEC DNSKEY", "a.root. 60 NSEC " + testZone + " A RRSIG NSEC", testZone + " 60 NSEC . NS DS RRSIG NSEC"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rr)
	}
	for _, ns := range zoneServers {
		host := ns.Name + "." + testZone
		r.referral = append(r.referral, &dns.NS{Hdr: dns.RR_Header{Name: testZone, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 3600}, Ns: host})
		r.glue = append(r.glue, &dns.A{Hdr: dns.RR_Header{Name: host, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: ns.Addresses[0].AsSlice()},
			&dns.AAAA{Hdr: dns.RR_Header{Name: host, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: 3600}, AAAA: ns.Addresses[1].AsSlice()})
	}
	for _, rr := range records {
		h := rr.Header()
		if r.sets[h.Name] == nil {
			r.sets[h.Name] = map[uint16][]dns.RR{}
		}
		set := []dns.RR{rr}
		sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: h.Ttl}, Algorithm: r.key.Algorithm, KeyTag: r.key.KeyTag(), SignerName: ".",
			Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(24 * time.Hour).Unix())}
		if err := sig.Sign(priv.(crypto.Signer), set); err != nil {
			t.Fatal(err)
		}
		r.sets[h.Name][h.Rrtype] = append(set, sig)
	}
	return r
}

func (r *root) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	m.SetEdns0(1232, true)
	name, typ := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	wire, err := packName(name)
	below := dns.IsSubDomain(testZone, name)
	sets, exists := r.sets[name]
	switch {
	case err != nil:
		m.Rcode = dns.RcodeFormatError
	case below && (name != testZone || typ != dns.TypeDS):
		m.Ns = append(append(m.Ns, r.referral...), r.sets[testZone][dns.TypeDS]...)
		m.Extra = append(m.Extra, r.glue...)
	case exists && sets[typ] != nil:
		m.Authoritative = true
		m.Answer = sets[typ]
	default:
		m.Authoritative = true
		m.Ns = append(m.Ns, r.sets["."][dns.TypeSOA]...)
		proofs := map[string]bool{}
		between := func(wire []byte) {
			last := ""
			for _, n := range rootNames {
				if other, err := packName(n); err == nil && compareNames(other, wire) <= 0 {
					last = n
				}
			}
			proofs[last] = true
		}
		between(wire)
		if !exists && name != "root." && name != "test." && name != "upkeep.test." {
			m.Rcode = dns.RcodeNameError
			between([]byte("\x01*\x00"))
			for _, encloser := range []string{"a.root.", "root.", "upkeep.test.", "test."} {
				if wire, err := packName("*." + encloser); err == nil && dns.IsSubDomain(encloser, name) {
					clear(proofs)
					between(wire)
					wire, _ = packName(name)
					between(wire)
					break
				}
			}
		}
		for n := range proofs {
			m.Ns = append(m.Ns, r.sets[n][dns.TypeNSEC]...)
		}
	}
	_ = w.WriteMsg(m) // a lost answer is asked for again
}
