package dnsserver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const headerLen = 12

// Bits of the second 16 bits of a header.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagCD = 1 << 4

	opcodeMask  = 0xf << 11
	opcodeShift = 11
)

// Bits of the flags in an OPT record.
const (
	ednsDO = 1 << 15
	ednsCO = 1 << 14 // compact answers OK (RFC 9824)
)

// A query is what a packet asks. Its slices point into the packet.
type query struct {
	id       uint16
	flags    uint16
	question []byte // name, type and class as they came; empty if there is none
	qtype    uint16
	class    uint16
	lower    [maxName + 3]byte // the name in lower case, with room for the rest of a cache key
	nameLen  int
	path     []byte // room for the path that the name stands for
	denied   denied // room for an answer that denies the name

	edns        bool // it has an OPT record: answers have one too, also errors (RFC 6891, section 6.1.1)
	badOptions  bool // the record is whole, an option in it is not
	version     uint8
	size        uint16 // what the asker can receive over UDP
	do, co      bool
	nsid        bool
	keepalive   bool
	padding     bool
	zoneVersion bool
	cookie      []byte // the option's content, nil if absent

	tsigName, tsigAlg []byte // of a TSIG record, in wire format
}

func (q *query) name() []byte { return q.lower[:q.nameLen] }
func (q *query) opcode() int  { return int(q.flags&opcodeMask) >> opcodeShift }

// A verdict says what to do with a packet that parseQuery has read.
type verdict int

const (
	verdictAnswer  verdict = iota
	verdictDrop            // not a query: say nothing
	verdictFormErr         // malformed
	verdictNotImp          // an opcode other than QUERY
	verdictBadVers         // an EDNS version that isn't known
	verdictTSIG            // signed with a key that can't be known
)

// parseQuery reads a packet. It looks at every record, so that a malformed one
// is noticed, but follows no compression pointer: no name that matters in a
// query can have one.
func parseQuery(p []byte, q *query) verdict {
	q.question, q.nameLen = nil, 0
	q.edns, q.badOptions, q.version, q.size = false, false, 0, 0
	q.do, q.co, q.nsid, q.keepalive, q.padding, q.zoneVersion = false, false, false, false, false, false
	q.cookie, q.tsigName, q.tsigAlg = nil, nil, nil
	if len(p) < headerLen {
		return verdictDrop
	}
	q.id = binary.BigEndian.Uint16(p)
	q.flags = binary.BigEndian.Uint16(p[2:])
	if q.flags&flagQR != 0 {
		return verdictDrop // answering an answer makes loops
	}
	if q.opcode() != dns.OpcodeQuery {
		return verdictNotImp // what follows may have any form (RFC 8906, section 3.1.4)
	}
	qd := int(binary.BigEndian.Uint16(p[4:]))
	off := headerLen
	if qd == 1 {
		if off = q.readQuestion(p); off < 0 {
			return verdictFormErr
		}
	}
	counts := [3]int{int(binary.BigEndian.Uint16(p[6:])), int(binary.BigEndian.Uint16(p[8:])), int(binary.BigEndian.Uint16(p[10:]))}
	if qd > 1 {
		return verdictFormErr // RFC 9619
	}
	for section, n := range counts {
		for i := range n {
			last := section == 2 && i == n-1
			if off = q.readRecord(p, off, section == 2, last); off < 0 {
				return verdictFormErr
			}
		}
	}
	switch {
	case off != len(p):
		return verdictFormErr
	case qd == 0 && q.cookie == nil: // a query without a question can ask for a cookie (RFC 7873, section 5.4)
		return verdictFormErr
	case q.version != 0:
		return verdictBadVers
	case q.badOptions:
		return verdictFormErr
	case q.tsigName != nil:
		return verdictTSIG
	}
	return verdictAnswer
}

func (q *query) readQuestion(p []byte) int {
	i, n := headerLen, 0
	for {
		if i >= len(p) {
			return -1
		}
		l := int(p[i])
		if l > maxLabel || i+1+l > len(p) || n+1+l > maxName {
			return -1
		}
		q.lower[n] = byte(l)
		for j, c := range p[i+1 : i+1+l] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.lower[n+1+j] = c
		}
		i, n = i+1+l, n+1+l
		if l == 0 {
			break
		}
	}
	if i+4 > len(p) {
		return -1
	}
	q.nameLen = n
	q.qtype = binary.BigEndian.Uint16(p[i:])
	q.class = binary.BigEndian.Uint16(p[i+2:])
	q.question = p[headerLen : i+4]
	return i + 4
}

// skipName returns the offset behind the name at off, or -1.
func skipName(p []byte, off int) int {
	for n := 0; off < len(p); {
		l := int(p[off])
		switch {
		case l == 0:
			return off + 1
		case l >= 0xc0:
			if off+2 > len(p) || int(binary.BigEndian.Uint16(p[off:])&0x3fff) >= off {
				return -1
			}
			return off + 2
		case l > maxLabel:
			return -1
		}
		off += 1 + l
		if n += 1 + l; n >= maxName {
			return -1
		}
	}
	return -1
}

// plainName returns the length of the name at the start of b, or -1 if it is
// malformed or has a pointer.
func plainName(b []byte) int {
	for i := 0; i < len(b) && i < maxName; i += 1 + int(b[i]) {
		if b[i] == 0 {
			return i + 1
		}
		if b[i] > maxLabel {
			return -1
		}
	}
	return -1
}

// readRecord reads the record at off and returns the offset behind it, or -1.
func (q *query) readRecord(p []byte, off int, additional, last bool) int {
	start := off
	if off = skipName(p, off); off < 0 || off+10 > len(p) {
		return -1
	}
	owner := p[start:off]
	typ := binary.BigEndian.Uint16(p[off:])
	class := binary.BigEndian.Uint16(p[off+2:])
	ttl := binary.BigEndian.Uint32(p[off+4:])
	end := off + 10 + int(binary.BigEndian.Uint16(p[off+8:]))
	if end > len(p) {
		return -1
	}
	data := p[off+10 : end]
	switch typ {
	case dns.TypeOPT:
		if !additional || q.edns || len(owner) != 1 {
			return -1 // RFC 6891, section 6.1.1
		}
		q.edns = true
		q.size = class
		q.version = uint8(ttl >> 16)
		q.do, q.co = ttl&ednsDO != 0, ttl&ednsDO != 0 && ttl&ednsCO != 0
		// In another version options may have another form.
		q.badOptions = q.version == 0 && !q.readOptions(data)
	case dns.TypeTSIG:
		// The last record, of class ANY (RFC 8945, section 5.1).
		alg := plainName(data)
		if !last || class != dns.ClassANY || alg < 0 || plainName(owner) != len(owner) || !validTSIG(data[alg:]) {
			return -1
		}
		q.tsigName, q.tsigAlg = owner, data[:alg]
	}
	return end
}

// validTSIG checks the fields behind the algorithm.
func validTSIG(b []byte) bool {
	if len(b) < 10 {
		return false
	}
	mac := int(binary.BigEndian.Uint16(b[8:]))
	if b = b[10:]; len(b) < mac+6 {
		return false
	}
	b = b[mac:]
	return len(b) == 6+int(binary.BigEndian.Uint16(b[4:]))
}

// readOptions reads EDNS options. Those that aren't known are passed over.
func (q *query) readOptions(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		code, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if len(b) < 4+n {
			return false
		}
		data := b[4 : 4+n]
		b = b[4+n:]
		switch code {
		case dns.EDNS0NSID:
			q.nsid = true
		case dns.EDNS0COOKIE:
			if n != 8 && (n < 16 || n > 40) {
				return false // RFC 7873, section 5.2.2
			}
			if q.cookie == nil { // with several, the first counts
				q.cookie = data
			}
		case dns.EDNS0TCPKEEPALIVE:
			q.keepalive = true
		case dns.EDNS0PADDING:
			q.padding = true
		case dns.EDNS0ZONEVERSION:
			if n != 0 {
				return false // RFC 9660, section 3.1
			}
			q.zoneVersion = true
		}
	}
	return true
}

// forgetOptions leaves of EDNS that it was there.
func (q *query) forgetOptions() {
	q.nsid, q.keepalive, q.padding, q.zoneVersion, q.cookie = false, false, false, false, nil
}

// AsksKeepalive reports whether a query has the TCP keepalive option, which
// some transports forbid.
func AsksKeepalive(packet []byte) bool {
	var q query
	return parseQuery(packet, &q) != verdictFormErr && q.keepalive
}
