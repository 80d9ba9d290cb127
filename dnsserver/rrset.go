package dnsserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// An rrset is a record set in wire format: names in lower case and not
// compressed, data in canonical order, as DNSSEC signs it (RFC 4034, section 6).
type rrset struct {
	owner []byte
	typ   uint16
	ttl   uint32
	data  [][]byte
}

// newRRset makes a set of records of one type at one name.
func newRRset(rrs []dns.RR) (*rrset, error) {
	h := rrs[0].Header()
	owner, err := packName(h.Name)
	if err != nil {
		return nil, err
	}
	s := &rrset{owner: owner, typ: h.Rrtype, ttl: h.Ttl}
	for _, rr := range rrs {
		data, err := packData(rr)
		if err != nil {
			return nil, fmt.Errorf("record %q: %w", rr.String(), err)
		}
		s.ttl = min(s.ttl, rr.Header().Ttl) // one TTL for all (RFC 2181, section 5.2)
		s.data = append(s.data, data)
	}
	slices.SortFunc(s.data, bytes.Compare)
	s.data = slices.CompactFunc(s.data, bytes.Equal)
	return s, nil
}

// packData returns a record's data in canonical form.
func packData(rr dns.RR) ([]byte, error) {
	rr = dns.Copy(rr)
	// The types of RFC 4034, section 6.2 (as RFC 6840 has it) that the
	// configuration can hold have names in lower case.
	switch rr := rr.(type) {
	case *dns.NS:
		rr.Ns = lowerText(rr.Ns)
	case *dns.SOA:
		rr.Ns, rr.Mbox = lowerText(rr.Ns), lowerText(rr.Mbox)
	case *dns.MX:
		rr.Mx = lowerText(rr.Mx)
	case *dns.PTR:
		rr.Ptr = lowerText(rr.Ptr)
	case *dns.SRV:
		rr.Target = lowerText(rr.Target)
	case *dns.NAPTR:
		rr.Replacement = lowerText(rr.Replacement)
	case *dns.RP:
		rr.Mbox, rr.Txt = lowerText(rr.Mbox), lowerText(rr.Txt)
	case *dns.AFSDB:
		rr.Hostname = lowerText(rr.Hostname)
	case *dns.KX:
		rr.Exchanger = lowerText(rr.Exchanger)
	}
	rr.Header().Name = "."
	buf := make([]byte, 70000)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return nil, err
	}
	const before = 1 + 2 + 2 + 4 + 2 // root, type, class, TTL, length
	return bytes.Clone(buf[before:n]), nil
}

func lowerText(s string) string {
	b := []byte(s)
	lowerName(b)
	return string(b)
}

// txtSet is a set of one TXT record with one string.
func txtSet(owner []byte, ttl uint32, text string) *rrset {
	data := make([]byte, 0, 1+len(text))
	data = append(append(data, byte(len(text))), text...)
	return &rrset{owner, dns.TypeTXT, ttl, [][]byte{data}}
}

// nsecSet is the record that says which types exist at the owner, up to next.
func nsecSet(owner, next []byte, ttl uint32, types []uint16) *rrset {
	data := make([]byte, 0, len(next)+16)
	data = appendBitmap(append(data, next...), types)
	return &rrset{owner, dns.TypeNSEC, ttl, [][]byte{data}}
}

// appendBitmap appends a type bitmap (RFC 4034, section 4.1.2). The types are
// in ascending order.
func appendBitmap(b []byte, types []uint16) []byte {
	for i := 0; i < len(types); {
		window := byte(types[i] >> 8)
		var bits [32]byte
		n := 0
		for ; i < len(types) && byte(types[i]>>8) == window; i++ {
			low := byte(types[i])
			bits[low/8] |= 0x80 >> (low % 8)
			n = int(low/8) + 1
		}
		b = append(append(b, window, byte(n)), bits[:n]...)
	}
	return b
}

// appendTo appends the set's records to a message under construction whose
// question has the name qname (in lower case, at offset 12).
func (s *rrset) appendTo(b, qname []byte) []byte {
	for _, data := range s.data {
		b = appendName(b, s.owner, qname)
		b = binary.BigEndian.AppendUint16(b, s.typ)
		b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
		b = binary.BigEndian.AppendUint32(b, s.ttl)
		length := len(b)
		b = append(b, 0, 0)
		b = appendData(b, s.typ, data, qname)
		binary.BigEndian.PutUint16(b[length:], uint16(len(b)-length-2))
	}
	return b
}

// appendData appends data with its names compressed, where RFC 3597, section 4
// lets that be done.
func appendData(b []byte, typ uint16, data, qname []byte) []byte {
	switch typ {
	case dns.TypeNS, dns.TypePTR:
		return appendName(b, data, qname)
	case dns.TypeMX:
		return appendName(append(b, data[:2]...), data[2:], qname)
	case dns.TypeSOA:
		mname := skipName(data, 0)
		rname := skipName(data[mname:], 0) + mname
		b = appendName(b, data[:mname], qname)
		b = appendName(b, data[mname:rname], qname)
		return append(b, data[rname:]...)
	}
	return append(b, data...)
}

// appendName appends a name, with a pointer into the question's name for the
// longest suffix they share. Every name that an answer repeats ends like the
// question, so nothing else needs to be remembered.
func appendName(b, name, qname []byte) []byte {
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		if at := suffixAt(qname, name[i:]); at >= 0 {
			b = append(b, name[:i]...)
			return binary.BigEndian.AppendUint16(b, 0xc000|uint16(headerLen+at))
		}
	}
	return append(b, name...)
}
