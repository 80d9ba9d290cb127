package dnsserver

import (
	"bytes"
	"fmt"

	"github.com/miekg/dns"
)

const (
	maxName  = 255
	maxLabel = 63
)

// packName turns a name in presentation format into wire format, lower case.
func packName(s string) ([]byte, error) {
	buf := make([]byte, maxName+1)
	n, err := dns.PackDomainName(dns.Fqdn(s), buf, 0, nil, false)
	if err != nil || n > maxName {
		return nil, fmt.Errorf("%q is not a domain name", s)
	}
	return lowerName(buf[:n]), nil
}

// showName is the presentation format of a name in wire format.
func showName(name []byte) string {
	s, _, err := dns.UnpackDomainName(name, 0)
	if err != nil {
		return fmt.Sprintf("(malformed name %x)", name)
	}
	return s
}

// lowerName changes a name in wire format to lower case. Length bytes are at
// most 63 and so never look like letters.
func lowerName(name []byte) []byte {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] = c + 'a' - 'A'
		}
	}
	return name
}

// suffixAt returns the offset in name at which the zone's name starts, or -1
// when name is outside the zone. Both are in lower case.
func suffixAt(name, zone []byte) int {
	at := len(name) - len(zone)
	if at < 0 || !bytes.Equal(name[at:], zone) {
		return -1
	}
	// The bytes agree; the offset must also be the start of a label.
	for i := 0; i <= at; i += 1 + int(name[i]) {
		if i == at {
			return at
		}
	}
	return -1
}

// labelsOf returns the labels of the part of a name before the offset end, or
// false if one has a byte that no name of ours has.
func labelsOf(name []byte, end int) ([]string, bool) {
	for i := 0; i < end; {
		next := i + 1 + int(name[i])
		for _, c := range name[i+1 : next] {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return nil, false
			}
		}
		i = next
	}
	s := string(name[:end])
	labels := make([]string, 0, 10)
	for i := 0; i < end; i += 1 + int(s[i]) {
		labels = append(labels, s[i+1:i+1+int(s[i])])
	}
	return labels, true
}

// parentOf returns the name without its first label, or nil for the root.
func parentOf(name []byte) []byte {
	if len(name) <= 1 {
		return nil
	}
	return name[1+int(name[0]):]
}

// labelCount is the number of labels for an RRSIG: neither the root nor an
// asterisk at the front is counted (RFC 4034, section 3.1.3).
func labelCount(name []byte) uint8 {
	n := uint8(0)
	if len(name) > 2 && name[0] == 1 && name[1] == '*' {
		name = name[2:]
	}
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		n++
	}
	return n
}

// successor appends the name that follows directly in canonical order (RFC
// 4034, section 6.1): the name with a zero byte as a label before it or, when
// that would be too long, the next longer or larger first label (RFC 4471).
// Letters in upper case are passed over, since they sort as lower case. The
// zone must not be the name itself unless it has room for another label.
func successor(dst, name []byte) []byte {
	if len(name)+2 <= maxName {
		return append(append(dst, 1, 0), name...)
	}
	for len(name) > 1 {
		label, rest := name[1:1+int(name[0])], parentOf(name)
		if len(label) < maxLabel && len(name)+1 <= maxName {
			dst = append(append(dst, byte(len(label)+1)), label...)
			return append(append(dst, 0), rest...)
		}
		for i := len(label) - 1; i >= 0; i-- {
			c := label[i]
			if c == 0xff {
				continue
			}
			if c++; c == 'A' {
				c = 'Z' + 1
			}
			dst = append(append(dst, byte(i+1)), label[:i]...)
			return append(append(dst, c), rest...)
		}
		name = rest
	}
	return append(dst, 0)
}
