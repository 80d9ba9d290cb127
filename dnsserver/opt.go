package dnsserver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	// udpSize is the size of an answer that passes through networks without
	// fragments; it is also what is offered for queries.
	udpSize = 1232
	minSize = 512
	maxSize = 65535

	// padBlock is the block size of answers on encrypted transports (RFC 8467).
	padBlock = 468
)

// An ednsReply is what the OPT record of an answer says.
type ednsReply struct {
	rcode     int
	do, co    bool
	nsid      string
	cookie    []byte // complete option content, nil for none
	keepalive uint16 // in tenths of a second, 0 for none
	version   bool   // of the zone (RFC 9660)
	labels    uint8
	serial    uint32
	agent     []byte // report channel, nil for none
	ede       int
	edeText   string
	pad       bool
}

// append appends an OPT record. The message so far is b[start:]; it is not made
// longer than max by padding.
func (r *ednsReply) append(b []byte, start, max int) []byte {
	b = append(b, 0, 0, byte(dns.TypeOPT))
	b = binary.BigEndian.AppendUint16(b, udpSize)
	b = append(b, byte(r.rcode>>4), 0)
	flags := uint16(0)
	if r.do {
		flags |= ednsDO
	}
	if r.co {
		flags |= ednsCO
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	length := len(b)
	b = append(b, 0, 0)
	if r.nsid != "" {
		b = appendOption(b, dns.EDNS0NSID, len(r.nsid))
		b = append(b, r.nsid...)
	}
	if r.cookie != nil {
		b = appendOption(b, dns.EDNS0COOKIE, len(r.cookie))
		b = append(b, r.cookie...)
	}
	if r.keepalive > 0 {
		b = appendOption(b, dns.EDNS0TCPKEEPALIVE, 2)
		b = binary.BigEndian.AppendUint16(b, r.keepalive)
	}
	if r.version {
		b = appendOption(b, dns.EDNS0ZONEVERSION, 6)
		b = append(b, r.labels, 0)
		b = binary.BigEndian.AppendUint32(b, r.serial)
	}
	if r.agent != nil {
		b = appendOption(b, dns.EDNS0REPORTING, len(r.agent))
		b = append(b, r.agent...)
	}
	if r.ede != edeNone {
		b = appendOption(b, dns.EDNS0EDE, 2+len(r.edeText))
		b = binary.BigEndian.AppendUint16(b, uint16(r.ede))
		b = append(b, r.edeText...)
	}
	if r.pad {
		n := len(b) - start + 4
		n = (n+padBlock-1)/padBlock*padBlock - n
		if room := max - (len(b) - start) - 4; n > room {
			n = room
		}
		if n >= 0 {
			b = appendOption(b, dns.EDNS0PADDING, n)
			for range n {
				b = append(b, 0)
			}
		}
	}
	binary.BigEndian.PutUint16(b[length:], uint16(len(b)-length-2))
	return b
}

func appendOption(b []byte, code uint16, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

// size is what append adds without padding.
func (r *ednsReply) size() int {
	n := 11
	if r.nsid != "" {
		n += 4 + len(r.nsid)
	}
	if r.cookie != nil {
		n += 4 + len(r.cookie)
	}
	if r.keepalive > 0 {
		n += 6
	}
	if r.version {
		n += 10
	}
	if r.agent != nil {
		n += 4 + len(r.agent)
	}
	if r.ede != edeNone {
		n += 6 + len(r.edeText)
	}
	return n
}
