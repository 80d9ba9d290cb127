package dnsserver

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"
)

// With compact denial, the answer to a name that does not exist is put together
// from the SOA record as it was signed before, and an NSEC record of the name's
// own. Of both the name and the signature just enough is kept to make the same
// answer again.

// An absence is a name that did not exist in one generation of the index.
type absence struct {
	nsec digest // of the record that denies it
	gen  uint64 // plus one
}

// An absenceTable is a fixed number of slots, found by digest, like [stampTable].
type absenceTable struct {
	slots []absence
	locks stripes
}

func newAbsenceTable(slots int) *absenceTable {
	return &absenceTable{slots: make([]absence, tableSize(slots))}
}

func (t *absenceTable) has(a absence) bool {
	at := tableBucket(&a.nsec, len(t.slots))
	lock := &t.locks[at/ways%len(t.locks)]
	lock.Lock()
	defer lock.Unlock()
	for _, s := range t.slots[at : at+ways] {
		if s == a {
			return true
		}
	}
	return false
}

func (t *absenceTable) put(a absence) {
	at := tableBucket(&a.nsec, len(t.slots))
	lock := &t.locks[at/ways%len(t.locks)]
	lock.Lock()
	defer lock.Unlock()
	for i := at; i < at+ways; i++ {
		if s := &t.slots[i]; s.nsec == a.nsec || s.gen != a.gen {
			*s = a
			return
		}
	}
	lock.turn++
	t.slots[at+int(lock.turn)%ways] = a
}

// findMissing answers a question about a name that does not exist, by compact
// denial. For another name, or where it is not as simple, it returns nil.
func (h *Handler) findMissing(v *view, q *query, now time.Time, how mode) (*answer, error) {
	if q.qtype == dns.TypeNSEC || q.qtype == dns.TypeRRSIG {
		return nil, nil // there is an answer
	}
	if a := v.outside(q); a != nil {
		return a, nil
	}
	d := &q.denied
	sum := d.missing(v.zone, q.name())
	gone := absence{sum, v.gen + 1}
	if !v.absent.has(gone) {
		if how == crowded && q.do {
			// A flood of names that nobody asked for lately: no work for them.
			return nil, errDenialNotSigned
		}
		exists, err := v.zone.exists(v.idx, q.name(), &q.path)
		if err != nil || exists {
			return nil, nil
		}
		v.absent.put(gone)
	}
	d.answer = answer{aa: true, ede: edeNone}
	if !q.do || q.co {
		d.answer.rcode = dns.RcodeNameError
	}
	d.body = d.body[:0]
	soa, err := h.soaPiece(v, q.do, now, how)
	if err != nil {
		return nil, err
	}
	d.add(soa, uint16(headerLen+q.nameLen-len(v.zone.origin)))
	if q.do {
		switch made, err := d.addMissing(v.zone.signer, sum, now, how >= signing); {
		case err == errNotSigned:
			return nil, errDenialNotSigned
		case err != nil:
			return nil, nil // it fails in the general way too, which reports it
		case !made:
			h.stat.hits.Add(1)
		}
	}
	d.answer.body, d.answer.extra = d.body, len(d.body)
	return &d.answer, nil
}

// missingBitmap is that of a name that does not exist (RFC 9824, section 3).
var missingBitmap = appendBitmap(nil, []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME})

// missing makes the NSEC record of a name that does not exist.
func (d *denied) missing(z *zone, name []byte) digest {
	d.key = append(successor(d.key[:0], name), missingBitmap...)
	d.data[0] = d.key
	d.set = rrset{name, dns.TypeNSEC, z.denialTTL(), d.data[:]}
	return d.set.sum()
}

// addMissing adds that record and its signatures, and says whether one had to be
// made.
func (d *denied) addMissing(s *signer, sum digest, now time.Time, may bool) (made bool, err error) {
	d.body = d.set.appendTo(d.body, d.set.owner)
	d.answer.ns++
	for i := range s.zoneKeys {
		st, fresh, err := s.stamp(&d.set, sum, i, now, may)
		if err != nil {
			return false, err
		}
		made = made || fresh
		d.body = append(d.body, 0xc0, headerLen)
		d.body = binary.BigEndian.AppendUint16(d.body, dns.TypeRRSIG)
		d.body = binary.BigEndian.AppendUint16(d.body, dns.ClassINET)
		d.body = binary.BigEndian.AppendUint32(d.body, d.set.ttl)
		length := len(d.body)
		d.body = s.appendStamp(append(d.body, 0, 0), &d.set, i, &st)
		binary.BigEndian.PutUint16(d.body[length:], uint16(len(d.body)-length-2))
		d.answer.ns++
	}
	return made, nil
}
