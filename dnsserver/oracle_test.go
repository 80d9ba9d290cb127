package dnsserver

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// An oracle holds answers against what any resolver may expect. It knows the
// packets, the zone's public keys and what there is in the zone (see truth), and
// nothing of how an answer was made. What it has found good it remembers, up to
// a bound, so that the same answer to many packets is looked at once.
type oracle struct {
	h     *Handler
	truth *truth
	seed  maphash.Seed
	good  map[uint64]*dns.Msg // answers, by all but their id
	sigs  map[uint64]bool     // signatures with their sets
	asked map[uint64]bool     // NSEC records

	out, again []byte // room for answers
}

const remembered = 1 << 14

func newOracle(t testing.TB, h *Handler) *oracle {
	return &oracle{h: h, truth: newTruth(t, h), seed: maphash.MakeSeed(),
		good: map[uint64]*dns.Msg{}, sigs: map[uint64]bool{}, asked: map[uint64]bool{}}
}

func remember[V any](m map[uint64]V, key uint64, v V) {
	if len(m) >= remembered {
		clear(m)
	}
	m[key] = v
}

// judge looks at one answer.
func judge(t testing.TB, h *Handler, packet, out []byte, c Client) *dns.Msg {
	t.Helper()
	return newOracle(t, h).judge(t, packet, out, c)
}

// judge returns the answer; its id may be that of an earlier one.
func (o *oracle) judge(t testing.TB, packet, out []byte, c Client) *dns.Msg {
	if len(out) < 12 || len(packet) < 12 || out[0] != packet[0] || out[1] != packet[1] {
		t.Fatalf("wrong header\n%x\n%x", packet, out)
	}
	key := maphash.Bytes(o.seed, out[2:])
	r := o.good[key]
	if r == nil {
		r = new(dns.Msg)
		if err := r.Unpack(out); err != nil {
			t.Fatalf("malformed answer: %v\n%x\n%x", err, packet, out)
		}
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf(format+"\n%x\n%v", append(args, packet, r)...)
		}
		// Nothing follows what was unpacked, and nothing was missed.
		if again, err := r.Pack(); err != nil || len(again) == 0 {
			fail("can't be packed again: %v", err)
		}
		o.answer(r, fail)
		remember(o.good, key, r)
	}
	o.relation(packet, out, r, c, func(format string, args ...any) {
		t.Fatalf(format+"\n%x\n%v", append(args, packet, r)...)
	})
	return r
}

type failer func(format string, args ...any)

// relation judges how an answer fits the query.
func (o *oracle) relation(packet, out []byte, r *dns.Msg, c Client, fail failer) {
	if !r.Response || r.RecursionAvailable || r.AuthenticatedData || r.Zero || r.RecursionDesired != (packet[2]&1 != 0) {
		fail("wrong flags")
	}
	limit := maxSize
	if c.Transport == UDP {
		limit = udpSize
	}
	var q dns.Msg
	if r.Rcode == dns.RcodeFormatError || r.Rcode == dns.RcodeNotImplemented || q.Unpack(packet) != nil {
		if len(out) > limit {
			fail("%d bytes", len(out))
		}
		return
	}
	if r.CheckingDisabled != q.CheckingDisabled {
		fail("CD is not copied")
	}
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
	if ropt != nil && (ropt.Do() != opt.Do() || ropt.Version() != 0 || ropt.UDPSize() != udpSize) {
		fail("wrong OPT")
	}
	if len(q.Question) == 1 && (len(r.Question) != 1 || q.Question[0] != r.Question[0]) {
		fail("the question is not repeated as it was")
	}
}

// answer judges an answer by itself.
func (o *oracle) answer(r *dns.Msg, fail failer) {
	if len(r.Question) != 1 {
		return
	}
	if r.Truncated && len(r.Answer)+len(r.Ns) > 0 {
		fail("records beside TC")
	}
	if r.Truncated || r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return
	}
	question := r.Question[0]
	if !r.Authoritative || !dns.IsSubDomain(testZone, question.Name) {
		fail("not authoritative, or outside the zone")
	}
	opt := r.IsEdns0()
	do := opt != nil && opt.Do()
	o.sections(r, do, fail)
	answered := false
	for _, rr := range r.Answer {
		if !strings.EqualFold(rr.Header().Name, question.Name) {
			fail("an answer at another name")
		}
		answered = answered || rr.Header().Rrtype == question.Qtype || question.Qtype == dns.TypeANY
	}
	if answered == (len(r.Ns) > 0) || answered != (len(r.Answer) > 0) {
		fail("answer and denial in one, or neither")
	}
	if answered && r.Rcode != dns.RcodeSuccess && question.Qtype != dns.TypeNSEC && question.Qtype != dns.TypeRRSIG {
		fail("an answer with an error code")
	}
	o.denial(r, do, answered, fail)
}

// sections judges the record sets and their signatures.
func (o *oracle) sections(r *dns.Msg, do bool, fail failer) {
	type id struct {
		name string
		typ  uint16
	}
	for n, section := range [][]dns.RR{r.Answer, r.Ns} {
		sets := map[id][]dns.RR{}
		sigs := map[id][]*dns.RRSIG{}
		for _, rr := range section {
			i := id{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
			if sig, ok := rr.(*dns.RRSIG); ok {
				i.typ = sig.TypeCovered
				sigs[i] = append(sigs[i], sig)
				continue
			}
			if n == 1 && i.typ != dns.TypeSOA && i.typ != dns.TypeNSEC {
				fail("%s in a denial", dns.TypeToString[i.typ])
			}
			sets[i] = append(sets[i], rr)
		}
		if _, soa := sets[id{testZone, dns.TypeSOA}]; n == 1 && len(section) > 0 && !soa {
			fail("a denial without SOA")
		}
		for i, set := range sets {
			if do != (len(sigs[i]) > 0) {
				fail("%s %s: %d signatures, DO is %v", i.name, dns.TypeToString[i.typ], len(sigs[i]), do)
			}
			for _, sig := range sigs[i] {
				o.verify(sig, set, fail)
			}
		}
		for i := range sigs {
			if sets[i] == nil && r.Question[0].Qtype != dns.TypeRRSIG {
				fail("%s %s: a signature without its records", i.name, dns.TypeToString[i.typ])
			}
		}
	}
}

// hash of texts.
func (o *oracle) hash(texts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(o.seed)
	for _, s := range texts {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return h.Sum64()
}

func (o *oracle) verify(sig *dns.RRSIG, set []dns.RR, fail failer) {
	texts := []string{sig.String()}
	for _, rr := range set {
		texts = append(texts, strings.ToLower(rr.Header().Name)+strings.TrimPrefix(rr.String(), rr.Header().Name))
	}
	key := o.hash(texts...)
	if o.sigs[key] {
		return
	}
	if !sig.ValidityPeriod(time.Now()) {
		fail("a signature that is not valid now: %v", sig)
	}
	for _, k := range o.h.view.Load().zone.keys {
		if k.Tag == sig.KeyTag {
			if err := sig.Verify(k.Public, set); err != nil {
				fail("%s %s: %v", set[0].Header().Name, dns.TypeToString[sig.TypeCovered], err)
			}
			remember(o.sigs, key, true)
			return
		}
	}
	fail("a signature by an unknown key %d", sig.KeyTag)
}

// denial judges what an answer says of existence, by the truth.
func (o *oracle) denial(r *dns.Msg, do, answered bool, fail failer) {
	question := r.Question[0]
	qname, err := packName(question.Name)
	if err != nil {
		fail("question: %v", err)
	}
	exists := o.truth.exists(qname)
	compact := o.h.view.Load().zone.cfg.Denial != DenialNSEC
	opt := r.IsEdns0()
	if want := !exists && (!do || !compact || opt.Co()); (r.Rcode == dns.RcodeNameError) != want {
		fail("%s; the name exists: %v", dns.RcodeToString[r.Rcode], exists)
	}
	if !do {
		return
	}
	var records []nsec
	for _, rr := range append(slices.Clone(r.Ns), r.Answer...) {
		if rr, ok := rr.(*dns.NSEC); ok {
			records = append(records, o.nsec(rr, fail))
		}
	}
	if answered {
		return
	}
	types := func(owner []byte) []uint16 {
		for _, n := range records {
			if bytes.Equal(n.owner, owner) {
				return n.types
			}
		}
		return nil
	}
	covered := func(name []byte) *nsec {
		for i, n := range records {
			if compareNames(n.owner, name) < 0 && (compareNames(name, n.next) < 0 || len(n.next) == len(o.truth.names[0])) {
				return &records[i]
			}
		}
		return nil
	}
	at := types(qname)
	switch {
	case compact || exists && at != nil:
		if at == nil || len(records) != 1 || slices.Contains(at, question.Qtype) {
			fail("the denial does not say that there is no such type")
		}
		if compact && slices.Contains(at, dns.TypeNXNAME) == exists {
			fail("wrong about existence")
		}
	case exists:
		if n := covered(qname); n == nil || len(records) > 2 || !bytes.HasSuffix(n.next, qname) {
			fail("no proof of an empty non-terminal")
		}
	default:
		encloser := parentOf(qname)
		for !o.truth.exists(encloser) {
			encloser = parentOf(encloser)
		}
		if covered(qname) == nil {
			fail("no proof that the name does not exist")
		}
		if covered(append([]byte("\x01*"), encloser...)) == nil {
			fail("no proof that there is no wildcard under %s", showName(encloser))
		}
		if len(records) > 2 {
			fail("more proofs than needed")
		}
	}
}

type nsec struct {
	owner, next []byte
	types       []uint16
}

// nsec judges one record: the names it is between, and by asking its bitmap.
func (o *oracle) nsec(rr *dns.NSEC, fail failer) nsec {
	n := nsec{types: rr.TypeBitMap}
	var err error
	if n.owner, err = packName(rr.Hdr.Name); err != nil {
		fail("owner: %v", err)
	}
	if n.next, err = packName(rr.NextDomain); err != nil {
		fail("next name: %v", err)
	}
	key := o.hash(string(n.owner), rr.String())
	if o.asked[key] {
		return n
	}
	compact := o.h.view.Load().zone.cfg.Denial != DenialNSEC
	missing := slices.Contains(n.types, dns.TypeNXNAME)
	if missing && (len(n.types) != 3 || !compact) {
		fail("NXNAME beside other types, or in a chain")
	}
	if !slices.IsSorted(n.types) || !slices.Contains(n.types, dns.TypeRRSIG) || !slices.Contains(n.types, dns.TypeNSEC) {
		fail("a bitmap without RRSIG or NSEC")
	}
	switch {
	case !compact:
		if next := o.truth.next(n.owner); next == nil || !bytes.Equal(next, n.next) {
			fail("after %s comes %s", showName(n.owner), showName(next))
		}
	case len(n.owner) <= maxName-2 && !bytes.Equal(n.next, append([]byte{1, 0}, n.owner...)):
		fail("the next name %q is not the one that follows", rr.NextDomain)
	}
	for _, typ := range []uint16{dns.TypeA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeAAAA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY, dns.TypeSVCB, dns.TypeCAA, 65280} {
		m := new(dns.Msg)
		m.SetQuestion(rr.Hdr.Name, typ)
		packet, err := m.Pack()
		if err != nil {
			fail("%v", err)
		}
		out, _ := o.h.Respond(nil, packet, Client{client.Addr, TCP}, true)
		var r dns.Msg
		if err := r.Unpack(out); err != nil {
			fail("%v", err)
		}
		if r.Rcode == dns.RcodeServerFailure {
			continue // under v0 while the index is stale
		}
		if (len(r.Answer) > 0) != slices.Contains(n.types, typ) {
			fail("the bitmap is wrong about %s", dns.Type(typ))
		}
		if (r.Rcode == dns.RcodeNameError) != missing {
			fail("the bitmap is wrong about the name: plain answer %s", dns.RcodeToString[r.Rcode])
		}
	}
	remember(o.asked, key, true)
	return n
}
