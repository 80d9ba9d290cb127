package dnsserver

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// With a chain, one answer does for all names between two of it that have the
// same closest ancestor, but for where its compression pointers point: they
// depend on how long the question's name is. Such answers are kept under the
// place, so that a name that nobody asked for before costs a search.

// outside answers what needs no look into the zone, nil for everything else.
func (v *view) outside(q *query) *answer {
	switch q.qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		return failure(dns.RcodeRefused, edeNotSupported, "no zone transfers: every server follows the log itself")
	case dns.TypeMAILA, dns.TypeMAILB, dns.TypeTKEY:
		return failure(dns.RcodeNotImplemented, edeNotSupported, "")
	case dns.TypeOPT, dns.TypeTSIG, dns.TypeNXNAME:
		return failure(dns.RcodeFormatError, edeInvalidType, "")
	}
	z, qname := v.zone, q.name()
	if suffixAt(qname, z.origin) < 0 {
		return failure(dns.RcodeRefused, edeNotAuth, "")
	}
	if v.stale != "" && len(qname) > len(z.v0) && z.underV0(qname) && !v.isStatus(qname) {
		return failure(dns.RcodeServerFailure, edeNotReady, v.stale)
	}
	return nil
}

// findChained answers a question by the chain, when it decides alone: about names
// that don't exist. Else it returns nil.
func (h *Handler) findChained(v *view, q *query, now time.Time, how mode) (*answer, error) {
	if a := v.outside(q); a != nil {
		return a, nil
	}
	qname := q.name()
	q.key = v.zone.key(q.key[:0], qname)
	p := v.chain.find(q.key)
	if p.exact || p.below {
		return nil, nil
	}
	var key [10]byte
	key[0] = 0xff // no name starts with it
	if q.do {
		key[1] |= 1
	}
	if p.ofBefore {
		key[1] |= 2
	}
	binary.LittleEndian.PutUint32(key[2:], uint32(p.block))
	binary.LittleEndian.PutUint16(key[6:], uint16(p.at))
	binary.LittleEndian.PutUint16(key[8:], uint16(p.encloser))
	hash := maphash.Bytes(h.denials.seed, key[:])
	a, known := h.denials.get(key[:], hash, v.gen, now.Unix())
	if a != nil {
		h.stat.hits.Add(1)
		return a, nil
	}
	if how == crowded && !known && q.do {
		return nil, errDenialNotSigned
	}
	a, err := v.missing(q.key, p, q.do, now, how >= signing)
	if err != nil {
		return nil, err
	}
	a.key, a.hash, a.gen = string(key[:]), hash, v.gen
	h.denials.put(a)
	return a, nil
}

// missing makes the answer for names with that place in the chain, as if the
// closest ancestor had been asked for.
func (v *view) missing(key []byte, p place, do bool, now time.Time, sign bool) (*answer, error) {
	encloser := appendKeyName(nil, key[:p.encloser], v.zone.origin)
	b := builder{view: v, now: now, qname: encloser, do: do, sign: sign}
	b.a = &answer{aa: true, rcode: dns.RcodeNameError, refresh: math.MaxInt64, ede: edeNone, body: make([]byte, 0, 768)}
	b.add(&b.a.ns, v.zone.soaAt(v.head.Size, v.zone.denialTTL()))
	if do {
		b.add(&b.a.ns, b.span(p))
		if wild := v.wildcard(key[:p.encloser]); wild.block != p.block || wild.at != p.at {
			b.add(&b.a.ns, b.span(wild))
		}
	}
	if b.err == errNotSigned {
		b.err = errDenialNotSigned
	}
	b.a.extra = len(b.a.body)
	b.a.pointers, b.a.encloser = pointers(b.a.body, int(b.a.ns)), len(encloser)
	return b.a, b.err
}

// wildcard is the place of the wildcard below a name.
func (v *view) wildcard(key []byte) place {
	return v.chain.find(append(slices.Clone(key), '*', 0))
}

// span is the NSEC record of the name before a place.
func (b *builder) span(p place) *rrset {
	z := b.zone
	before, behind := b.chain.between(p)
	owner := appendKeyName(nil, before.key, z.origin)
	var types []uint16
	if len(owner) > len(z.v0) && z.underV0(owner) {
		types = []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		if before.txt {
			types = []uint16{dns.TypeTXT, dns.TypeRRSIG, dns.TypeNSEC}
		}
	} else {
		types = z.ownNode(b.head.Size, owner).types()
	}
	return nsecSet(owner, appendKeyName(nil, behind, z.origin), z.denialTTL(), types)
}

// pointers returns where the compression pointers are in a body of so many
// records, which are SOA, NSEC and RRSIG.
func pointers(body []byte, records int) (at []uint16) {
	name := func(i int) int {
		for body[i] != 0 && body[i] < 0xc0 {
			i += 1 + int(body[i])
		}
		if body[i] == 0 {
			return i + 1
		}
		at = append(at, uint16(i))
		return i + 2
	}
	for i := 0; records > 0; records-- {
		i = name(i)
		typ, size := binary.BigEndian.Uint16(body[i:]), int(binary.BigEndian.Uint16(body[i+8:]))
		if i += 10; typ == dns.TypeSOA {
			name(name(i))
		}
		i += size
	}
	return at
}

// movePointers makes the pointers right for a question's name of that length.
func (a *answer) movePointers(body []byte, nameLen int) {
	by := uint16(nameLen - a.encloser)
	for _, at := range a.pointers {
		p := body[at : at+2]
		binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)+by)
	}
}
