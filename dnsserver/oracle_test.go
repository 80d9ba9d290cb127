package dnsserver

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/tlog/index"
)

const testZone = "l.upkeep.test."

func testConfig() ZoneConfig {
	cfg := DefaultZoneConfig()
	cfg.Zone = testZone
	cfg.NameServers = []NameServer{{Name: "ns0", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}, {Name: "ns1.example.net."}}
	cfg.Records = []string{`@ CAA 0 issue "ca.example.net"`, "www A 192.0.2.2", "a.b.c TXT deep", "@ MX 10 mail.example.net."}
	cfg.NSID = "one"
	return cfg
}

func testIndex() *memindex.Index {
	idx := memindex.New()
	many := index.Module{Path: "example.org/many"}
	for i := 40; i > 0; i-- {
		many.Majors = append(many.Majors, index.Version{Version: "v" + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ".0.0", Time: 0x60000000})
	}
	idx.SetToolchains(index.Toolchain{Version: "go1.27.4", Kind: "cur", Time: 0x6b000000}, index.Toolchain{Version: "go1.26.11", Kind: "prev", Time: 0x6a000000})
	idx.Set(memindex.Head(71848828),
		memindex.Release("github.com/mjl-/mox", "v0.0.15", 0x66fa7e15),
		index.Module{Path: "github.com/BurntSushi/toml", Majors: []index.Version{{Version: "v2.0.0+incompatible", Time: 2}, {Version: "v1.5.0", Time: 1}}},
		index.Module{Path: "github.com/untagged/mod", Pseudo: &index.Version{Version: "v0.0.0-20200101000000-abcdefabcdef"}},
		memindex.Release("github.com/a/b/c/v2", "v2.0.0", 1),
		memindex.Release("gocloud.dev", "v0.40.0", 0x60000000),
		many,
	)
	return idx
}

func testKeys(t testing.TB, algorithm string) []*Key {
	t.Helper()
	dir := t.TempDir()
	if _, err := GenerateKey(dir, testZone, algorithm, true, Timing{}); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(dir, testZone)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func testHandler(t testing.TB, cfg ZoneConfig, idx index.Reader) *Handler {
	t.Helper()
	h, err := NewHandler(cfg, testKeys(t, "ecdsap256sha256"), idx, Options{Answers: 1024})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func question(name string, typ uint16, do bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.Id = 0x1234
	if do {
		m.SetEdns0(4096, true)
	}
	return m
}

var client = Client{netip.MustParseAddrPort("198.51.100.7:4711"), UDP}

// exchange asks the handler, by packets, and checks the answer.
func exchange(t testing.TB, h *Handler, m *dns.Msg, c Client) *dns.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, ok := h.Respond(nil, packet, c, true)
	if !ok || len(out) == 0 {
		t.Fatalf("no answer to\n%v", m)
	}
	cached, _ := h.Respond(nil, packet, c, true)
	if !bytes.Equal(out, cached) {
		t.Fatalf("the second answer differs:\n%x\n%x", out, cached)
	}
	return judge(t, h, packet, out, c)
}

// judge holds an answer against what any resolver may expect. It knows the
// packets and the zone's public key, and nothing of how the answer was made.
func judge(t testing.TB, h *Handler, packet, out []byte, c Client) *dns.Msg {
	t.Helper()
	var q, r dns.Msg
	if err := r.Unpack(out); err != nil {
		t.Fatalf("malformed answer: %v\n%x", err, out)
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf(format+"\n%x\n%v", append(args, packet, &r)...)
	}
	// Nothing follows what was unpacked, and nothing was missed.
	if again, err := r.Pack(); err != nil || len(again) == 0 {
		fail("can't be packed again: %v", err)
	}
	if len(packet) < 12 || !r.Response || r.Id != uint16(packet[0])<<8|uint16(packet[1]) {
		fail("wrong header")
	}
	if r.RecursionAvailable || r.AuthenticatedData || r.Zero || r.RecursionDesired != (packet[2]&1 != 0) {
		fail("wrong flags")
	}
	if q.Unpack(packet) != nil || r.Rcode == dns.RcodeFormatError || r.Rcode == dns.RcodeNotImplemented {
		return &r
	}
	if r.CheckingDisabled != q.CheckingDisabled {
		fail("CD is not copied")
	}
	limit := maxSize
	opt := q.IsEdns0()
	if c.Transport == UDP {
		limit = minSize
		if opt != nil {
			limit = min(max(int(opt.UDPSize()), minSize), udpSize)
		}
	}
	if len(out) > limit {
		fail("%d bytes; the limit is %d", len(out), limit)
	}
	ropt := r.IsEdns0()
	if (opt == nil) != (ropt == nil) {
		fail("EDNS in one of query and answer only")
	}
	do := opt != nil && opt.Do()
	if ropt != nil && (ropt.Do() != do || ropt.Version() != 0 || ropt.UDPSize() != udpSize) {
		fail("wrong OPT")
	}
	if len(q.Question) != 1 || len(r.Question) != 1 || q.Question[0] != r.Question[0] {
		if len(q.Question) == 1 {
			fail("the question is not repeated as it was")
		}
		return &r
	}
	question := q.Question[0]
	if r.Truncated && len(r.Answer)+len(r.Ns) > 0 {
		fail("records beside TC")
	}
	if r.Truncated || r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return &r
	}
	if !r.Authoritative || !dns.IsSubDomain(testZone, question.Name) {
		fail("not authoritative, or outside the zone")
	}
	judgeSections(t, h, &q, &r, do, fail)
	return &r
}

func judgeSections(t testing.TB, h *Handler, q, r *dns.Msg, do bool, fail func(string, ...any)) {
	t.Helper()
	question := q.Question[0]
	type id struct {
		name string
		typ  uint16
	}
	signedSections := [][]dns.RR{r.Answer, r.Ns}
	soa := false
	for _, section := range signedSections {
		sets := map[id][]dns.RR{}
		sigs := map[id][]*dns.RRSIG{}
		for _, rr := range section {
			i := id{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
			if sig, ok := rr.(*dns.RRSIG); ok {
				i.typ = sig.TypeCovered
				sigs[i] = append(sigs[i], sig)
				continue
			}
			soa = soa || i.typ == dns.TypeSOA
			sets[i] = append(sets[i], rr)
		}
		for i, set := range sets {
			if do != (len(sigs[i]) > 0) {
				fail("%s %s: %d signatures, DO is %v", i.name, dns.TypeToString[i.typ], len(sigs[i]), do)
			}
			for _, sig := range sigs[i] {
				verify(t, h, sig, set, fail)
			}
		}
		for i := range sigs {
			if sets[i] == nil && question.Qtype != dns.TypeRRSIG {
				fail("%s %s: a signature without its records", i.name, dns.TypeToString[i.typ])
			}
		}
	}
	answered := false
	for _, rr := range r.Answer {
		if !strings.EqualFold(rr.Header().Name, question.Name) {
			fail("an answer at another name")
		}
		answered = answered || rr.Header().Rrtype == question.Qtype || question.Qtype == dns.TypeANY
	}
	if answered == (len(r.Ns) > 0) || answered != (len(r.Answer) > 0) || soa && !answered && len(r.Ns) == 0 {
		fail("answer and denial in one, or neither")
	}
	if answered && r.Rcode != dns.RcodeSuccess && question.Qtype != dns.TypeNSEC && question.Qtype != dns.TypeRRSIG {
		fail("an answer with an error code")
	}
	if !do {
		return
	}
	for _, rr := range append(slices.Clone(r.Ns), r.Answer...) {
		if nsec, ok := rr.(*dns.NSEC); ok {
			judgeBitmap(t, h, nsec, question, r.Rcode, fail)
		}
	}
}

// judgeBitmap asks for every type and compares with what the NSEC record says.
func judgeBitmap(t testing.TB, h *Handler, nsec *dns.NSEC, question dns.Question, rcode int, fail func(string, ...any)) {
	t.Helper()
	missing := slices.Contains(nsec.TypeBitMap, dns.TypeNXNAME)
	if missing && len(nsec.TypeBitMap) != 3 {
		fail("NXNAME beside other types")
	}
	if !slices.IsSorted(nsec.TypeBitMap) || !slices.Contains(nsec.TypeBitMap, dns.TypeRRSIG) || !slices.Contains(nsec.TypeBitMap, dns.TypeNSEC) {
		fail("a bitmap without RRSIG or NSEC")
	}
	if slices.Contains(nsec.TypeBitMap, question.Qtype) && question.Qtype != dns.TypeNSEC && question.Qtype != dns.TypeRRSIG {
		fail("the denied type is in the bitmap")
	}
	owner, err := packName(nsec.Hdr.Name)
	if err != nil {
		fail("owner: %v", err)
	}
	next, err := packName(nsec.NextDomain)
	if err != nil || len(owner) <= maxName-2 && !bytes.Equal(next, append([]byte{1, 0}, owner...)) {
		fail("the next name %q is not the one that follows: %v", nsec.NextDomain, err)
	}
	for _, typ := range []uint16{dns.TypeA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeAAAA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY, dns.TypeSVCB, dns.TypeCAA, 65280} {
		m := new(dns.Msg)
		m.SetQuestion(question.Name, typ)
		packet, err := m.Pack()
		if err != nil {
			fail("%v", err)
		}
		out, _ := h.Respond(nil, packet, Client{client.Addr, TCP}, true)
		var r dns.Msg
		if err := r.Unpack(out); err != nil {
			fail("%v", err)
		}
		if (len(r.Answer) > 0) != slices.Contains(nsec.TypeBitMap, typ) {
			fail("the bitmap is wrong about %s", dns.Type(typ))
		}
		if (r.Rcode == dns.RcodeNameError) != missing {
			fail("the bitmap is wrong about the name: plain answer %s", dns.RcodeToString[r.Rcode])
		}
	}
}

func verify(t testing.TB, h *Handler, sig *dns.RRSIG, set []dns.RR, fail func(string, ...any)) {
	t.Helper()
	if !sig.ValidityPeriod(time.Now()) {
		fail("a signature that is not valid now: %v", sig)
	}
	for _, k := range h.view.Load().zone.keys {
		if k.Tag == sig.KeyTag {
			if err := sig.Verify(k.Public, set); err != nil {
				fail("%s %s: %v", set[0].Header().Name, dns.TypeToString[sig.TypeCovered], err)
			}
			return
		}
	}
	fail("a signature by an unknown key %d", sig.KeyTag)
}
