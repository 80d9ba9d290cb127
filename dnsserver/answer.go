package dnsserver

import (
	"bytes"
	"math"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/tlog/index"
)

// Codes of extended errors (RFC 8914).
const (
	edeNone         = -1
	edeNotReady     = 14
	edeNotAuth      = 20
	edeNotSupported = 21
	edeInvalidType  = 30 // RFC 9824
)

// An answer is what follows the question in a message, without the OPT record.
// It is never changed once it is in the cache.
type answer struct {
	key     string // what it answers, in the cache
	hash    uint64
	gen     uint64 // of the index
	refresh int64  // when a signature in it is to be renewed, Unix seconds

	rcode      uint8
	aa         bool
	an, ns, ar uint16
	body       []byte
	extra      int // offset of the additional section in body

	ede     int
	edeText string
}

// failure is an answer without records.
func failure(rcode int, ede int, text string) *answer {
	return &answer{rcode: uint8(rcode), ede: ede, edeText: text}
}

// A view is what answers are made from: one zone, and the index at one moment.
type view struct {
	zone  *zone
	idx   index.Reader
	head  index.Head
	chain *chain                   // nil with compact denial
	soa   [2]atomic.Pointer[piece] // the SOA record in denials, without and with its signatures
	gen   uint64                   // changes with any of the others
	stale string                   // why names of modules can't be answered, or ""

	// What outlives it.
	limits           Limits
	answers, denials *cache
	absent           *absenceTable
	limit            *limiter
}

// staleness says why names of modules can't be answered, or "".
func staleness(head index.Head, limit time.Duration, now time.Time) string {
	switch {
	case head.Size == 0 && head.Accepted.IsZero():
		return "the log has not been read yet"
	case limit > 0 && now.Sub(head.Accepted).Abs() > limit: // a time to come is of a clock that was ahead
		return "stale: the log was last read " + head.Accepted.UTC().Format(time.RFC3339)
	}
	return ""
}

// answer answers a question of class IN. When a signature is missing that it may
// not make it returns errNotSigned or errDenialNotSigned.
func (v *view) answer(q *query, now time.Time, sign bool) (*answer, error) {
	if a := v.outside(q); a != nil {
		return a, nil
	}
	z, qname := v.zone, q.name()
	if v.chain != nil {
		return v.answerChained(q, now, sign)
	}
	n, exists, err := z.lookup(v.idx, v.head, qname)
	if err != nil {
		return nil, err
	}
	b := v.builder(qname, q.do, now, sign)
	var own *rrset
	if exists || q.do {
		own = b.nsec(n, exists)
	}
	b.compose(n, q.qtype, own, own)
	// Compact denial says in the NSEC record that a name does not exist. An
	// asker that can't read it, or can read both, gets the code.
	if !exists && (!q.do || q.co) {
		b.a.rcode = dns.RcodeNameError
	}
	if b.err == errNotSigned && !exists {
		return nil, errDenialNotSigned
	}
	return b.a, b.err
}

// answerChained answers by the chain.
func (v *view) answerChained(q *query, now time.Time, sign bool) (*answer, error) {
	qname := q.name()
	key := v.zone.key(nil, qname)
	p := v.chain.find(key) // it exists, else findChained had answered
	b := v.builder(qname, q.do, now, sign)
	var n node
	var own *rrset
	proofs := []*rrset{b.span(p)}
	if !p.exact {
		// There are only names below. One record says it all, but programs of the
		// ldns library want to see that no wildcard is beside the name either.
		parent := bytes.LastIndexByte(key[:len(key)-1], 0) + 1
		if wild := v.chain.wildcard(key[:parent]); wild.block != p.block || wild.at != p.at {
			proofs = append(proofs, b.span(wild))
		}
	} else {
		var err error
		if n, _, err = v.zone.lookup(v.idx, v.head, qname); err != nil {
			return nil, err
		}
		own = proofs[0]
	}
	b.compose(n, q.qtype, own, proofs...)
	return b.a, b.err
}

func (v *view) builder(qname []byte, do bool, now time.Time, sign bool) *builder {
	return &builder{view: v, now: now, qname: qname, do: do, sign: sign,
		a: &answer{aa: true, refresh: math.MaxInt64, ede: edeNone, body: make([]byte, 0, 512)}}
}

// isStatus reports whether qname is the status record, which is answered when
// the index is stale: it says so.
func (v *view) isStatus(qname []byte) bool {
	const label = "\x06status"
	return v.head.Size > 0 && len(qname) == len(label)+len(v.zone.v0) && string(qname[:len(label)]) == label
}

// A builder puts one answer together.
type builder struct {
	*view
	now   time.Time
	qname []byte
	do    bool
	sign  bool
	a     *answer
	err   error
}

// add appends a set, and its signatures when they are wanted.
func (b *builder) add(count *uint16, set *rrset) {
	b.put(count, set)
	if b.do {
		b.put(count, b.signatures(set))
	}
}

func (b *builder) put(count *uint16, set *rrset) {
	if set == nil || b.err != nil {
		return
	}
	b.a.body = set.appendTo(b.a.body, b.qname)
	*count += uint16(len(set.data))
}

func (b *builder) signatures(set *rrset) *rrset {
	if b.err != nil {
		return nil
	}
	sigs, refresh, err := b.zone.signer.sign(set, b.now, b.sign)
	if err != nil {
		b.err = err
		return nil
	}
	b.a.refresh = min(b.a.refresh, refresh)
	return sigs
}

// compose answers for a name. own is its NSEC record, nil if it has none, and
// proofs are those that deny what it does not have.
func (b *builder) compose(n node, qtype uint16, own *rrset, proofs ...*rrset) {
	a := b.a
	found := n.find(qtype)
	switch {
	case qtype == dns.TypeANY && len(n.sets) > 0:
		// RFC 8482, section 4.2.
		b.add(&a.an, &rrset{b.qname, dns.TypeHINFO, b.zone.ttl, [][]byte{[]byte("\x07RFC8482\x00")}})
	case qtype == dns.TypeNSEC && own != nil:
		b.add(&a.an, own)
	case qtype == dns.TypeRRSIG && own != nil:
		// One of the name's signatures is enough, as for ANY.
		set := own
		if len(n.sets) > 0 {
			set = n.sets[0]
		}
		b.put(&a.an, b.signatures(set))
	case found != nil:
		b.add(&a.an, found)
	default:
		b.add(&a.ns, b.zone.soaAt(b.head.Size, b.zone.denialTTL()))
		if b.do {
			for _, set := range proofs {
				b.add(&a.ns, set)
			}
		}
	}
	a.extra = len(a.body)
	if qtype == dns.TypeNS && found != nil {
		for _, set := range b.zone.glue {
			b.add(&a.ar, set)
		}
	}
}

// nsec is the record that denies everything else at the name and, for a name
// that does not exist, the name itself (RFC 9824, section 3).
func (b *builder) nsec(n node, exists bool) *rrset {
	types := n.types()
	if !exists {
		types = append(types, dns.TypeNXNAME)
	}
	return nsecSet(b.qname, successor(nil, b.qname), b.zone.denialTTL(), types)
}

// denialTTL is how long a denial is kept (RFC 2308, section 5 and RFC 9077).
func (z *zone) denialTTL() uint32 { return min(z.negTTL, z.apexTTL) }
