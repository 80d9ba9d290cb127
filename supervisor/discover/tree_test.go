package discover

import (
	"crypto"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
)

// The tests' names: root → test. → l.upkeep.test. (upkeep.test. is no zone of
// its own).
const (
	testZone = "l.upkeep.test."
	hello    = "example.org/hello"
)

var epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A tzone is one signed zone, answered online as authoritative servers do.
type tzone struct {
	name    string
	alg     uint8
	key     *dns.DNSKEY
	priv    crypto.Signer
	records map[string][]dns.RR // by "name type"
	denial  string              // "nsec", "nsec3", "compact"
	optOut  bool
	unsig   bool // signs nothing
	incept  time.Time
	expire  time.Time
}

func newZone(t testing.TB, zone string, alg uint8, denial string) *tzone {
	t.Helper()
	k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: alg}
	bits := map[uint8]int{dns.RSASHA256: 1024, dns.ECDSAP256SHA256: 256, dns.ECDSAP384SHA384: 384, dns.ED25519: 256, dns.RSASHA1: 1024}[alg]
	priv, err := k.Generate(bits)
	if err != nil {
		t.Fatal(err)
	}
	z := &tzone{name: zone, alg: alg, key: k, priv: priv.(crypto.Signer), records: map[string][]dns.RR{}, denial: denial,
		incept: epoch.Add(-time.Hour), expire: epoch.Add(24 * time.Hour)}
	z.add(k)
	z.add(rr(t, zone+" 300 IN SOA ns. host. 1 3600 600 86400 60"))
	z.add(rr(t, zone+" 3600 IN NS ns."))
	return z
}

func rr(t testing.TB, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rkey(n string, t uint16) string { return fmt.Sprintf("%s %d", dns.CanonicalName(n), t) }

func (z *tzone) add(r dns.RR) {
	k := rkey(r.Header().Name, r.Header().Rrtype)
	z.records[k] = append(z.records[k], r)
}

func (z *tzone) set(r dns.RR) {
	delete(z.records, rkey(r.Header().Name, r.Header().Rrtype))
	z.add(r)
}

// delegate puts the NS records, and the DS record unless insecure, of a child here.
func (z *tzone) delegate(t testing.TB, child *tzone, insecure bool) {
	z.set(rr(t, child.name+" 3600 IN NS ns."))
	if !insecure {
		ds := child.key.ToDS(dns.SHA256)
		ds.Hdr.Ttl = 3600
		z.set(ds)
	}
}

func (z *tzone) sign(set []dns.RR) []dns.RR {
	if n, ok := set[0].(*dns.NSEC); ok {
		slices.Sort(n.TypeBitMap)
	}
	if z.unsig {
		return set
	}
	sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: set[0].Header().Ttl}, Algorithm: z.alg, KeyTag: z.key.KeyTag(), SignerName: z.name,
		Inception: uint32(z.incept.Unix()), Expiration: uint32(z.expire.Unix())}
	if err := sig.Sign(z.priv, set); err != nil {
		panic(err)
	}
	return append(slices.Clone(set), sig)
}

// names are the owner names in the zone, empty non-terminals included, in order.
func (z *tzone) names() []string {
	have := map[string]bool{}
	for k := range z.records {
		n, _, _ := strings.Cut(k, " ")
		for ; n != z.name; n = parent(n) {
			have[n] = true
		}
	}
	out := []string{z.name}
	for n := range have {
		out = append(out, n)
	}
	slices.SortFunc(out, compare)
	return out
}

func (z *tzone) types(n string) (types []uint16) {
	for k := range z.records {
		var t uint16
		if o, num, _ := strings.Cut(k, " "); o == n {
			fmt.Sscan(num, &t)
			types = append(types, t)
		}
	}
	if len(types) > 0 {
		types = append(types, dns.TypeRRSIG)
	}
	slices.Sort(types)
	return types
}

// answer is what an authoritative server of the zone says.
func (z *tzone) answer(m *dns.Msg) {
	q := m.Question[0]
	qname := dns.CanonicalName(q.Name)
	m.Authoritative = true
	if set := z.records[rkey(qname, q.Qtype)]; len(set) > 0 {
		m.Answer = append(m.Answer, z.sign(set)...)
		return
	}
	m.Ns = append(m.Ns, z.sign(z.records[rkey(z.name, dns.TypeSOA)])...)
	names := z.names()
	if z.optOut { // unsigned delegations, and what stands only above them, are left out
		names = slices.DeleteFunc(names, func(n string) bool {
			return n != z.name && !slices.ContainsFunc(names, func(m string) bool {
				return dns.IsSubDomain(n, m) && len(z.types(m)) > 0 && (!slices.Contains(z.types(m), dns.TypeNS) || slices.Contains(z.types(m), dns.TypeDS))
			})
		})
	}
	exists := slices.Contains(names, qname)
	if !exists && z.denial != "compact" {
		m.Rcode = dns.RcodeNameError
	}
	hdr := dns.RR_Header{Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}
	nsec := func(owner string, types []uint16) {
		i, _ := slices.BinarySearchFunc(names, owner, compare)
		hdr.Name = owner
		m.Ns = append(m.Ns, z.sign([]dns.RR{&dns.NSEC{Hdr: hdr, NextDomain: names[(i+1)%len(names)], TypeBitMap: append(types, dns.TypeNSEC)}})...)
	}
	before := func(n string) string {
		i, _ := slices.BinarySearchFunc(names, n, compare)
		return names[i-1]
	}
	encloser := qname
	for !slices.Contains(names, encloser) {
		encloser = parent(encloser)
	}
	switch z.denial {
	case "compact":
		types := append(z.types(qname), dns.TypeNSEC)
		if !exists {
			types = []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME}
		} else if len(types) == 1 {
			types = []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		}
		hdr.Name = qname
		m.Ns = append(m.Ns, z.sign([]dns.RR{&dns.NSEC{Hdr: hdr, NextDomain: `\000.` + qname, TypeBitMap: types}})...)
	case "nsec":
		// Empty non-terminals have no NSEC record of their own.
		names = slices.DeleteFunc(names, func(n string) bool { return len(z.types(n)) == 0 })
		if types := z.types(qname); len(types) > 0 {
			nsec(qname, types)
			return
		}
		nsec(before(qname), z.types(before(qname)))
		if !exists {
			if b := before("*." + encloser); b != before(qname) {
				nsec(b, z.types(b))
			}
		}
	case "nsec3":
		type hashed struct {
			hash  string
			types []uint16
		}
		var hs []hashed
		for _, n := range names {
			hs = append(hs, hashed{dns.HashName(n, dns.SHA1, 1, "ab"), z.types(n)})
		}
		slices.SortFunc(hs, func(a, b hashed) int { return strings.Compare(a.hash, b.hash) })
		emit := func(n string) {
			h := dns.HashName(n, dns.SHA1, 1, "ab")
			i, found := slices.BinarySearchFunc(hs, h, func(a hashed, h string) int { return strings.Compare(a.hash, h) })
			if !found {
				i = (i + len(hs) - 1) % len(hs)
			}
			owner := strings.ToLower(hs[i].hash) + "." + strings.TrimPrefix(z.name, ".")
			for _, r := range m.Ns {
				if r.Header().Name == owner {
					return
				}
			}
			flags := uint8(0)
			if z.optOut {
				flags = 1
			}
			m.Ns = append(m.Ns, z.sign([]dns.RR{&dns.NSEC3{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC3, Class: dns.ClassINET, Ttl: 60},
				Hash: 1, Flags: flags, Iterations: 1, SaltLength: 1, Salt: "AB", HashLength: 20, NextDomain: hs[(i+1)%len(hs)].hash, TypeBitMap: hs[i].types}})...)
		}
		emit(qname)
		if !exists {
			emit(encloser)
			closer := qname
			for parent(closer) != encloser {
				closer = parent(closer)
			}
			emit(closer)
			emit("*." + encloser)
		}
	}
}

// A tree is a whole tree of zones behind one resolver.
type tree struct {
	mu    sync.Mutex
	zones []*tzone // root first
	root  *tzone
	tld   *tzone
	zone  *tzone

	attack func(q dns.Question, m *dns.Msg) *dns.Msg // changes or drops (nil) an answer
	asked  []dns.Question
	tcp    int
	addr   string
}

// treeAlgs are the algorithms of root, test. and the zone.
type treeAlgs struct {
	root, tld, zone uint8
	tldDenial       string
	zoneDenial      string
}

var defaultAlgs = treeAlgs{dns.RSASHA256, dns.ECDSAP256SHA256, dns.ECDSAP256SHA256, "nsec", "compact"}

func newTree(t testing.TB, a treeAlgs) *tree {
	t.Helper()
	tr := &tree{root: newZone(t, ".", a.root, "nsec"), tld: newZone(t, "test.", a.tld, a.tldDenial), zone: newZone(t, testZone, a.zone, a.zoneDenial)}
	tr.zones = []*tzone{tr.root, tr.tld, tr.zone}
	tr.root.delegate(t, tr.tld, false)
	tr.tld.delegate(t, tr.zone, false)
	tr.publish(t, 100, epoch.Add(-time.Minute), "v1.0.1", "v0.3.0")
	tr.start(t)
	return tr
}

// publish sets what the zone says.
func (tr *tree) publish(t testing.TB, size int64, at time.Time, versions ...string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var entries []name.Entry
	for i, v := range versions {
		entries = append(entries, name.Entry{Version: v, Time: epoch.Add(-time.Duration(i+1) * time.Hour)})
	}
	qname, err := name.Module(hello, testZone)
	if err != nil {
		t.Fatal(err)
	}
	txt := func(owner, s string) {
		tr.zone.set(&dns.TXT{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{s}})
	}
	txt(qname, name.FormatTXT(entries))
	txt(name.Toolchain(testZone), "v=go1.27.4 k=cur t=6a1b2c3d; v=go1.26.11 k=prev t=6a1b2c3c")
	hash := [32]byte{byte(size), byte(size >> 8)}
	txt(name.Status(testZone), name.StatusText{Size: size, Hash: hash, At: at}.Format())
}

func (tr *tree) anchor() string { return tr.root.key.ToDS(dns.SHA256).String() + "\n" }

// start answers as a resolver over UDP and TCP.
func (tr *tree) start(t testing.TB) {
	// One free port for both.
	var pc net.PacketConn
	var ln net.Listener
	for range 20 {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", ln.Addr().String()); err == nil {
			break
		}
		ln.Close()
	}
	if pc == nil {
		t.Fatal("no port is free for both UDP and TCP")
	}
	tr.addr = pc.LocalAddr().String()
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: tr, UDPSize: 4096}, {Listener: ln, Handler: tr}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go srv.ActivateAndServe()
		<-started
		t.Cleanup(func() { srv.Shutdown() })
	}
}

func (tr *tree) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	tr.mu.Lock()
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	if tcp {
		tr.tcp++
	}
	tr.asked = append(tr.asked, q.Question[0])
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	tr.resolve(m)
	if tr.attack != nil {
		m = tr.attack(q.Question[0], m)
	}
	tr.mu.Unlock()
	if m == nil {
		return
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, true)
		if !tcp {
			m.Truncate(int(opt.UDPSize()))
		}
	}
	w.WriteMsg(m)
}

// resolve answers from the zone that has the name; DS is the parent's.
func (tr *tree) resolve(m *dns.Msg) {
	q := m.Question[0]
	qname := dns.CanonicalName(q.Name)
	var best *tzone
	for _, z := range tr.zones {
		if !dns.IsSubDomain(z.name, qname) || q.Qtype == dns.TypeDS && z.name == qname && qname != "." {
			continue
		}
		if best == nil || dns.CountLabel(z.name) > dns.CountLabel(best.name) {
			best = z
		}
	}
	best.answer(m)
}

type dnsRR = dns.RR

func readFile(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writeFiles replaces all files of a folder by a text.
func writeFiles(t testing.TB, dir, text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if err := os.WriteFile(filepath.Join(dir, e.Name()), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
