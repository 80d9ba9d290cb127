package discover

import (
	"hash/fnv"
	"math/rand/v2"
	"strings"

	"github.com/miekg/dns"
)

// A mutator changes messages as somebody on the way could: whole records,
// their owners, lifetimes and the fields of signatures and proofs, rather than
// bytes. The same message is changed in the same ways each time.
type mutator struct {
	*rand.Rand
	stock []dns.RR // signed records of other answers
	names []string
}

func newMutator(wire []byte, stock []dns.RR, names []string) *mutator {
	h := fnv.New64a()
	h.Write(wire)
	return &mutator{rand.New(rand.NewPCG(h.Sum64(), 1)), stock, names}
}

func (r *mutator) name() string { return r.names[r.IntN(len(r.names))] }

// change returns a copy of the message with one to three changes.
func (r *mutator) change(m *dns.Msg) *dns.Msg {
	m = m.Copy()
	for range 1 + r.IntN(3) {
		section := &m.Answer
		if r.IntN(2) == 0 {
			section = &m.Ns
		}
		switch rrs := *section; {
		case len(rrs) == 0 || r.IntN(6) == 0:
			*section = append(rrs, dns.Copy(r.stock[r.IntN(len(r.stock))]))
		case r.IntN(8) == 0:
			m.Answer, m.Ns = m.Ns, m.Answer
		default:
			i := r.IntN(len(rrs))
			switch r.IntN(4) {
			case 0:
				*section = append(rrs[:i:i], rrs[i+1:]...)
			case 1:
				j := r.IntN(len(rrs))
				rrs[i], rrs[j] = rrs[j], rrs[i]
			case 2:
				h := rrs[i].Header()
				if r.IntN(2) == 0 {
					h.Name = r.name()
				} else {
					h.Ttl = r.Uint32() >> r.IntN(32)
				}
			default:
				r.record(rrs[i])
			}
		}
	}
	if r.IntN(4) == 0 {
		m.Rcode = r.IntN(6)
	}
	return m
}

// record changes what a record says.
func (r *mutator) record(rr dns.RR) {
	bits := []uint16{dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeDS, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME, dns.TypeCNAME, dns.TypeDNAME}
	switch rr := rr.(type) {
	case *dns.RRSIG:
		switch r.IntN(8) {
		case 0:
			rr.Labels = uint8(r.IntN(10))
		case 1:
			rr.SignerName = r.name()
		case 2:
			rr.KeyTag = uint16(r.Uint32())
		case 3:
			rr.Algorithm = []uint8{5, 8, 13, 14, 15, 16}[r.IntN(6)]
		case 4:
			rr.TypeCovered = bits[r.IntN(len(bits))]
		case 5:
			rr.Expiration = r.Uint32()
		case 6:
			rr.Inception = r.Uint32()
		case 7:
			rr.OrigTtl = r.Uint32() >> r.IntN(32)
		}
	case *dns.TXT:
		if r.IntN(2) == 0 && len(rr.Txt) > 0 {
			rr.Txt = append(rr.Txt, rr.Txt[0])
		} else {
			rr.Txt = []string{"v=v9.9.9 t=1"}
		}
	case *dns.NSEC:
		if r.IntN(2) == 0 {
			rr.NextDomain = r.name()
		} else {
			rr.TypeBitMap = []uint16{bits[r.IntN(len(bits))]}
		}
	case *dns.NSEC3:
		switch r.IntN(4) {
		case 0:
			rr.Flags ^= 1
		case 1:
			rr.Iterations = uint16(r.Uint32())
		case 2:
			rr.NextDomain = strings.Repeat(string("0V5"[r.IntN(3)]), 32)
		case 3:
			rr.TypeBitMap = []uint16{bits[r.IntN(len(bits))]}
		}
	case *dns.DNSKEY:
		switch r.IntN(3) {
		case 0:
			rr.Flags = []uint16{0, 256, 257, 385}[r.IntN(4)]
		case 1:
			rr.Algorithm = []uint8{5, 8, 13, 14, 15}[r.IntN(5)]
		case 2:
			rr.PublicKey = rr.PublicKey[:r.IntN(len(rr.PublicKey)+1)]
		}
	case *dns.DS:
		rr.Digest = strings.Repeat("00", r.IntN(50))
	default:
		rr.Header().Name = r.name()
	}
}
