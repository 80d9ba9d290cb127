// Package zonetest is a tree of signed zones for tests: the root, test. and
// l.upkeep.test., answered over UDP and TCP as a resolver would, with a hook
// that changes or drops answers. upkeep.test. is no zone of its own.
//
// It signs while answering, with keys made for each tree.
package zonetest

import (
	"crypto"
	"fmt"
	"net"
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
	ZoneName = "l.upkeep.test."
	Module   = "example.org/hello"
)

var Epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A Zone is one signed zone, answered online as authoritative servers do.
type Zone struct {
	Name       string
	Alg        uint8
	Key        *dns.DNSKEY
	Priv       crypto.Signer
	Records    map[string][]dns.RR // by [RecordKey]
	Denial     string              // "nsec", "nsec3", "compact"
	OptOut     bool                // NSEC3 without unsigned delegations
	Unsigned   bool                // signs nothing
	Inception  time.Time
	Expiration time.Time
}

func NewZone(t testing.TB, zone string, alg uint8, denial string) *Zone {
	t.Helper()
	k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: alg}
	bits := map[uint8]int{dns.RSASHA256: 1024, dns.ECDSAP256SHA256: 256, dns.ECDSAP384SHA384: 384, dns.ED25519: 256, dns.RSASHA1: 1024}[alg]
	priv, err := k.Generate(bits)
	if err != nil {
		t.Fatal(err)
	}
	z := &Zone{Name: zone, Alg: alg, Key: k, Priv: priv.(crypto.Signer), Records: map[string][]dns.RR{}, Denial: denial,
		Inception: Epoch.Add(-time.Hour), Expiration: Epoch.Add(24 * time.Hour)}
	z.Add(k)
	z.Add(RR(t, zone+" 300 IN SOA ns. host. 1 3600 600 86400 60"))
	z.Add(RR(t, zone+" 3600 IN NS ns."))
	return z
}

func RR(t testing.TB, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func RecordKey(n string, t uint16) string { return fmt.Sprintf("%s %d", dns.CanonicalName(n), t) }

func (z *Zone) Add(r dns.RR) {
	k := RecordKey(r.Header().Name, r.Header().Rrtype)
	z.Records[k] = append(z.Records[k], r)
}

func (z *Zone) Set(r dns.RR) {
	delete(z.Records, RecordKey(r.Header().Name, r.Header().Rrtype))
	z.Add(r)
}

// Delegate puts the NS records, and the DS record unless insecure, of a child here.
func (z *Zone) Delegate(t testing.TB, child *Zone, insecure bool) {
	z.Set(RR(t, child.Name+" 3600 IN NS ns."))
	if !insecure {
		ds := child.Key.ToDS(dns.SHA256)
		ds.Hdr.Ttl = 3600
		z.Set(ds)
	}
}

func (z *Zone) Sign(set []dns.RR) []dns.RR {
	// Attackers change what they get; the zone's own records stay as they are.
	set = slices.Clone(set)
	for i, r := range set {
		set[i] = dns.Copy(r)
	}
	if n, ok := set[0].(*dns.NSEC); ok {
		slices.Sort(n.TypeBitMap)
	}
	if z.Unsigned {
		return set
	}
	sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: set[0].Header().Ttl}, Algorithm: z.Alg, KeyTag: z.Key.KeyTag(), SignerName: z.Name,
		Inception: uint32(z.Inception.Unix()), Expiration: uint32(z.Expiration.Unix())}
	if err := sig.Sign(z.Priv, set); err != nil {
		panic(err)
	}
	return append(set, sig)
}

// names are the owner names in the zone, empty non-terminals included, in order.
func (z *Zone) names() []string {
	have := map[string]bool{}
	for k := range z.Records {
		n, _, _ := strings.Cut(k, " ")
		for ; n != z.Name; n = parent(n) {
			have[n] = true
		}
	}
	out := []string{z.Name}
	for n := range have {
		out = append(out, n)
	}
	slices.SortFunc(out, compare)
	return out
}

func (z *Zone) types(n string) (types []uint16) {
	for k := range z.Records {
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

// Answer is what an authoritative server of the zone says.
func (z *Zone) Answer(m *dns.Msg) {
	q := m.Question[0]
	qname := dns.CanonicalName(q.Name)
	m.Authoritative = true
	if set := z.Records[RecordKey(qname, q.Qtype)]; len(set) > 0 {
		m.Answer = append(m.Answer, z.Sign(set)...)
		return
	}
	m.Ns = append(m.Ns, z.Sign(z.Records[RecordKey(z.Name, dns.TypeSOA)])...)
	names := z.names()
	if !slices.Contains(names, qname) && z.Denial != "compact" {
		m.Rcode = dns.RcodeNameError
	}
	if z.OptOut { // unsigned delegations, and what stands only above them, are left out
		names = slices.DeleteFunc(names, func(n string) bool {
			return n != z.Name && !slices.ContainsFunc(names, func(m string) bool {
				return dns.IsSubDomain(n, m) && len(z.types(m)) > 0 && (!slices.Contains(z.types(m), dns.TypeNS) || slices.Contains(z.types(m), dns.TypeDS))
			})
		})
	}
	exists := slices.Contains(names, qname)
	hdr := dns.RR_Header{Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}
	nsec := func(owner string, types []uint16) {
		i, _ := slices.BinarySearchFunc(names, owner, compare)
		hdr.Name = owner
		m.Ns = append(m.Ns, z.Sign([]dns.RR{&dns.NSEC{Hdr: hdr, NextDomain: names[(i+1)%len(names)], TypeBitMap: append(types, dns.TypeNSEC)}})...)
	}
	before := func(n string) string {
		i, _ := slices.BinarySearchFunc(names, n, compare)
		return names[i-1]
	}
	encloser := qname
	for !slices.Contains(names, encloser) {
		encloser = parent(encloser)
	}
	switch z.Denial {
	case "compact":
		types := append(z.types(qname), dns.TypeNSEC)
		if !exists {
			types = []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME}
		} else if len(types) == 1 {
			types = []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		}
		hdr.Name = qname
		m.Ns = append(m.Ns, z.Sign([]dns.RR{&dns.NSEC{Hdr: hdr, NextDomain: `\000.` + qname, TypeBitMap: types}})...)
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
			owner := strings.ToLower(hs[i].hash) + "." + strings.TrimPrefix(z.Name, ".")
			for _, r := range m.Ns {
				if r.Header().Name == owner {
					return
				}
			}
			flags := uint8(0)
			if z.OptOut {
				flags = 1
			}
			m.Ns = append(m.Ns, z.Sign([]dns.RR{&dns.NSEC3{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC3, Class: dns.ClassINET, Ttl: 60},
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
type Tree struct {
	Mu    sync.Mutex
	Zones []*Zone // root first
	Root  *Zone
	TLD   *Zone
	Zone  *Zone

	Attack func(q dns.Question, m *dns.Msg) *dns.Msg // changes or drops (nil) an answer
	Asked  []dns.Question
	TCP    int    // questions over TCP
	Addr   string // host:port, UDP and TCP
}

// Algorithms are the algorithms of root, test. and the zone.
type Algorithms struct {
	Root, TLD, Zone uint8
	TLDDenial       string
	ZoneDenial      string
}

// Fast takes the algorithm whose keys are made fastest.
var Fast = Algorithms{dns.ECDSAP256SHA256, dns.ECDSAP256SHA256, dns.ECDSAP256SHA256, "nsec", "compact"}

// Default mixes what is common in the DNS.
var Default = Algorithms{dns.RSASHA256, dns.ECDSAP256SHA256, dns.ECDSAP256SHA256, "nsec", "compact"}

func New(t testing.TB, a Algorithms) *Tree {
	t.Helper()
	tr := &Tree{Root: NewZone(t, ".", a.Root, "nsec"), TLD: NewZone(t, "test.", a.TLD, a.TLDDenial), Zone: NewZone(t, ZoneName, a.Zone, a.ZoneDenial)}
	tr.Zones = []*Zone{tr.Root, tr.TLD, tr.Zone}
	tr.Root.Delegate(t, tr.TLD, false)
	tr.TLD.Delegate(t, tr.Zone, false)
	tr.Publish(t, 100, Epoch.Add(-time.Minute), "v1.0.1", "v0.3.0")
	tr.Start(t)
	return tr
}

// Publish sets what the zone says.
func (tr *Tree) Publish(t testing.TB, size int64, at time.Time, versions ...string) {
	tr.Mu.Lock()
	defer tr.Mu.Unlock()
	var entries []name.Entry
	for i, v := range versions {
		entries = append(entries, name.Entry{Version: v, Time: Epoch.Add(-time.Duration(i+1) * time.Hour)})
	}
	qname, err := name.Module(Module, ZoneName)
	if err != nil {
		t.Fatal(err)
	}
	txt := func(owner, s string) {
		tr.Zone.Set(&dns.TXT{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{s}})
	}
	txt(qname, name.FormatTXT(entries))
	txt(name.Toolchain(ZoneName), "v=go1.27.4 k=cur t=6a1b2c3d; v=go1.26.11 k=prev t=6a1b2c3c")
	hash := [32]byte{byte(size), byte(size >> 8)}
	txt(name.Status(ZoneName), name.StatusText{Size: size, Hash: hash, At: at}.Format())
}

func (tr *Tree) Anchor() string { return tr.Root.Key.ToDS(dns.SHA256).String() + "\n" }

// A Place is where a resolver listens: an address, and how to get there when it
// is in another network namespace.
type Place struct {
	Host string
	In   func(func() error) error
}

// Loopback is this machine.
var Loopback = Place{"127.0.0.1", func(f func() error) error { return f() }}

// Start answers as a resolver over UDP and TCP.
func (tr *Tree) Start(t testing.TB) { tr.Addr = listen(t, Loopback, tr) }

// listen serves on one free port for both transports.
func listen(t testing.TB, at Place, h dns.Handler) (addr string) {
	t.Helper()
	var pc net.PacketConn
	var ln net.Listener
	if err := at.In(func() (err error) {
		for range 20 {
			if ln, err = net.Listen("tcp", net.JoinHostPort(at.Host, "0")); err != nil {
				return err
			}
			if pc, err = net.ListenPacket("udp", ln.Addr().String()); err == nil {
				return nil
			}
			ln.Close()
		}
		return fmt.Errorf("no port is free for both UDP and TCP: %w", err)
	}); err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: h, UDPSize: 4096}, {Listener: ln, Handler: h}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go srv.ActivateAndServe()
		<-started
		t.Cleanup(func() { srv.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// ServeDNS answers honestly, unless there is an Attack.
func (tr *Tree) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	tr.Mu.Lock()
	attack := tr.Attack
	tr.Mu.Unlock()
	tr.serve(w, q, attack, nil)
}

func (tr *Tree) serve(w dns.ResponseWriter, q *dns.Msg, attack func(dns.Question, *dns.Msg) *dns.Msg, raw func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool) {
	tr.Mu.Lock()
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	if tcp {
		tr.TCP++
	}
	tr.Asked = append(tr.Asked, q.Question[0])
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	tr.Resolve(m)
	if attack != nil {
		m = attack(q.Question[0], m)
	}
	tr.Mu.Unlock()
	if m == nil {
		return
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, true)
		if !tcp {
			m.Truncate(int(opt.UDPSize()))
		}
	}
	if raw != nil && raw(w, q, m, tcp) {
		return
	}
	w.WriteMsg(m)
}

// A Path is a way to the tree with somebody on it.
type Path struct {
	Addr   string
	attack func(q dns.Question, m *dns.Msg) *dns.Msg
	raw    func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool
	tree   *Tree
}

// SetAttack sets what changes or drops (nil) answers; it runs with the tree locked.
func (p *Path) SetAttack(f func(q dns.Question, m *dns.Msg) *dns.Msg) {
	p.tree.Mu.Lock()
	defer p.tree.Mu.Unlock()
	p.attack = f
}

// SetRaw sets what writes answers itself; when it returns false they are
// written as usual.
func (p *Path) SetRaw(f func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool) {
	p.tree.Mu.Lock()
	defer p.tree.Mu.Unlock()
	p.raw = f
}

// NewPath opens another way to the tree.
func (tr *Tree) NewPath(t testing.TB) *Path { return tr.NewPathAt(t, Loopback) }

// NewPathAt opens another way to the tree, which begins at a place.
func (tr *Tree) NewPathAt(t testing.TB, at Place) *Path {
	p := &Path{tree: tr}
	p.Addr = listen(t, at, p)
	return p
}

// ServeDNS answers with what the attacker makes of the tree's answer.
func (p *Path) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	p.tree.Mu.Lock()
	attack, raw := p.attack, p.raw
	p.tree.Mu.Unlock()
	p.tree.serve(w, q, attack, raw)
}

// Resolve answers from the zone that has the name; DS is the parent's.
func (tr *Tree) Resolve(m *dns.Msg) {
	q := m.Question[0]
	qname := dns.CanonicalName(q.Name)
	var best *Zone
	for _, z := range tr.Zones {
		if !dns.IsSubDomain(z.Name, qname) || q.Qtype == dns.TypeDS && z.Name == qname && qname != "." {
			continue
		}
		if best == nil || dns.CountLabel(z.Name) > dns.CountLabel(best.Name) {
			best = z
		}
	}
	best.Answer(m)
}

func parent(name string) string {
	off, end := dns.NextLabel(name, 0)
	if end || name == "." {
		return "."
	}
	return name[off:]
}

// compare orders names canonically. The test's names have no escapes.
func compare(a, b string) int {
	la, lb := dns.SplitDomainName(a), dns.SplitDomainName(b)
	for i := 1; i <= min(len(la), len(lb)); i++ {
		if c := strings.Compare(la[len(la)-i], lb[len(lb)-i]); c != 0 {
			return c
		}
	}
	return len(la) - len(lb)
}
