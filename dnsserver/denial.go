package dnsserver

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// With a chain, the answer to a name that does not exist is put together from
// pieces that were signed before, for this name or another one: the SOA record,
// the NSEC record of the name before, and the one that denies a wildcard.

// A piece is a record set with its signatures in wire format. It is not changed.
type piece struct {
	zone     *zone // whose keys signed it
	refresh  int64
	records  uint16
	body     []byte
	pointers []uint16 // where body points to the zone's name in the question
}

// maxPieces bounds the NSEC records that are kept, as a share of the answers.
func (v *view) maxPieces() int64 { return int64(v.limits.Answers) }

// denied is what a denial needs while it is made; it is used again.
type denied struct {
	answer answer
	body   []byte
	key    []byte // of the question's name; with compact denial, the data of its NSEC record
	set    rrset  // that record
	data   [1][]byte

	// The wildcard that was looked for last.
	chain    *chain
	encloser []byte // its parent's key
	wild     place
}

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

// findChained answers a question by the chain, when that decides alone: about
// names that don't exist. Else it returns nil.
func (h *Handler) findChained(v *view, q *query, now time.Time, how mode) (*answer, error) {
	if a := v.outside(q); a != nil {
		return a, nil
	}
	d := &q.denied
	d.key = v.zone.key(d.key[:0], q.name())
	p := v.chain.find(d.key)
	if p.exact || p.below {
		return nil, nil
	}
	d.answer = answer{aa: true, rcode: dns.RcodeNameError, ede: edeNone}
	d.body = d.body[:0]
	soa, err := h.soaPiece(v, q.do, now, how)
	if err != nil {
		return nil, err
	}
	pointer := uint16(headerLen + q.nameLen - len(v.zone.origin))
	d.add(soa, pointer)
	if q.do {
		span, err := h.spanPiece(v, p, now, how)
		if err != nil {
			return nil, err
		}
		d.add(span, pointer)
		if w := d.wildcard(v.chain, d.key[:p.encloser]); w.block != p.block || w.at != p.at {
			if span, err = h.spanPiece(v, w, now, how); err != nil {
				return nil, err
			}
			d.add(span, pointer)
		}
	}
	h.stat.hits.Add(1)
	d.answer.body, d.answer.extra = d.body, len(d.body)
	return &d.answer, nil
}

// add puts a piece into the authority section.
func (d *denied) add(p *piece, pointer uint16) {
	start := len(d.body)
	d.body = append(d.body, p.body...)
	for _, at := range p.pointers {
		binary.BigEndian.PutUint16(d.body[start+int(at):], 0xc000|pointer)
	}
	d.answer.ns += p.records
}

// wildcard finds the wildcard below a name.
func (d *denied) wildcard(c *chain, encloser []byte) place {
	if d.chain != c || !bytes.Equal(d.encloser, encloser) {
		d.chain, d.encloser = c, append(d.encloser[:0], encloser...)
		d.wild = c.wildcard(encloser)
	}
	return d.wild
}

func (c *chain) wildcard(encloser []byte) place {
	return c.find(append(slices.Clone(encloser), '*', 0))
}

// soaPiece is the SOA record as it stands in denials.
func (h *Handler) soaPiece(v *view, do bool, now time.Time, how mode) (*piece, error) {
	kept := &v.soa[0]
	if do {
		kept = &v.soa[1]
	}
	if p := kept.Load(); p != nil && now.Unix() < p.refresh {
		return p, nil
	}
	p, err := v.piece(v.zone.soaAt(v.head.Size, v.zone.denialTTL()), do, now, how)
	if err == nil {
		kept.Store(p)
	}
	return p, err
}

// spanPiece is the NSEC record of the name before a place.
func (h *Handler) spanPiece(v *view, at place, now time.Time, how mode) (*piece, error) {
	block := v.chain.blocks[at.block]
	if p := block.piece(at.at); p != nil && p.zone == v.zone && now.Unix() < p.refresh {
		return p, nil
	}
	p, err := v.piece(v.span(at), true, now, how)
	if err != nil {
		return nil, err
	}
	if block.keep(at.at, p) {
		h.pieces.Add(1)
	}
	// Room is made anywhere; many blocks may be empty.
	for tries := 0; h.pieces.Load() > v.maxPieces() && tries < 100; tries++ {
		h.pieces.Add(-v.chain.blocks[rand.IntN(len(v.chain.blocks))].drop())
	}
	return p, nil
}

// piece makes the piece of a set.
func (v *view) piece(set *rrset, do bool, now time.Time, how mode) (*piece, error) {
	b := v.builder(v.zone.origin, do, now, how >= signing)
	b.add(&b.a.ns, set)
	if b.err == errNotSigned {
		b.err = errDenialNotSigned
	}
	return &piece{zone: v.zone, refresh: b.a.refresh, records: b.a.ns, body: bytes.Clone(b.a.body), pointers: pointers(b.a.body, int(b.a.ns))}, b.err
}

// span is the NSEC record of the name before a place.
func (v *view) span(p place) *rrset {
	z := v.zone
	before, behind := v.chain.between(p)
	owner := appendKeyName(nil, before.key, z.origin)
	var types []uint16
	if len(owner) > len(z.v0) && z.underV0(owner) {
		types = []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		if before.txt {
			types = []uint16{dns.TypeTXT, dns.TypeRRSIG, dns.TypeNSEC}
		}
	} else {
		types = z.ownNode(v.head.Size, owner).types()
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
