// Package name holds the formats of the zone of latest versions: which domain
// name a Go module has, and what its TXT records say.
//
// Both sides use it, so nothing here trusts its input: names and texts come
// from the network. Every function is pure; there are no files and no sockets.
//
// A module path is split at its first slash into host and path. The host's
// dots are label dots. The elements of the path stand before it, last first,
// each one label, with the bare label "_" between path and host:
//
//	github.com/mjl-/mox   mox.mjl_2d._.github.com.v0.<zone>
//	gocloud.dev           gocloud.dev.v0.<zone>
//
// In a path element every byte outside [a-z0-9-] is written _xx, two lower-case
// hex digits, and so is a dash at either end: DNS compares names without case,
// module paths don't. A path has exactly one such name; [ParseName] refuses any
// other spelling of the same bytes.
package name

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of the domain name system (RFC 1035, section 2.3.4).
const (
	maxLabel = 63
	maxName  = 255 // in wire format, with length bytes and the root
)

// Labels with a meaning of their own.
const (
	versionLabel   = "v0"
	separator      = "_"
	toolchainLabel = "toolchain"
	statusLabel    = "status"
)

var (
	// ErrTooLong is returned for a module that has no name in the zone because
	// a label or the name would be longer than DNS allows.
	ErrTooLong = errors.New("too long for a domain name")
	// ErrOutside is returned for a name that is not in the zone.
	ErrOutside = errors.New("outside the zone")
	// ErrNotCanonical is returned for a name that no module can have. It does
	// not exist, and nothing below it does.
	ErrNotCanonical = errors.New("not the name of any module")
)

// A Kind says what a name under the zone stands for.
type Kind int

const (
	KindOther     Kind = iota // in the zone, but not at or under v0
	KindRoot                  // v0 itself
	KindHost                  // the labels of a host, or of a part of one: Path is "github.com" or "com"
	KindSeparator             // the bare label before a host: Path is the host
	KindPath                  // a host and at least one path element: Path is the module path
	KindToolchain             // the toolchain record
	KindStatus                // the record about the index
)

// A Name is a name in the zone, read.
type Name struct {
	Kind Kind
	Path string // see the kinds
}

// Module returns the fully qualified name of the module in the zone, in lower
// case. A path without a slash is a host alone, and has no separator.
func Module(path, zone string) (string, error) {
	host, rest, hasPath := strings.Cut(path, "/")
	var labels []string
	if hasPath {
		elems := strings.Split(rest, "/")
		for i := len(elems) - 1; i >= 0; i-- {
			label := escape(elems[i])
			if label == "" {
				return "", fmt.Errorf("module path %q has an empty element", path)
			}
			labels = append(labels, label)
		}
		labels = append(labels, separator)
	}
	for _, label := range strings.Split(host, ".") {
		if !isHostLabel(label) {
			return "", fmt.Errorf("module path %q does not start with a host name in lower case", path)
		}
		labels = append(labels, label)
	}
	size := 1 + len(versionLabel) + wireLen(zone)
	for _, label := range labels {
		if len(label) > maxLabel {
			return "", fmt.Errorf("module %q: a label of its name would have %d bytes: %w", path, len(label), ErrTooLong)
		}
		size += 1 + len(label)
	}
	if size > maxName {
		return "", fmt.Errorf("module %q: its name would have %d bytes: %w", path, size, ErrTooLong)
	}
	return strings.Join(labels, ".") + "." + below(versionLabel, zone), nil
}

// Above returns the name of the nearest ancestor of a module whose own name is too
// long: it exists, since the module's path begins like that.
func Above(module, zone string) (fqdn string, ok bool) {
	for at := strings.LastIndexByte(module, '/'); at >= 0; at = strings.LastIndexByte(module, '/') {
		module = module[:at]
		if !strings.Contains(module, "/") {
			// The bare separator is between the host and what was cut.
			if fqdn, err := Module(module, zone); err == nil && wireLen(separator+"."+fqdn) <= maxName {
				return separator + "." + fqdn, true
			}
		}
		if fqdn, err := Module(module, zone); err == nil {
			return fqdn, true
		}
	}
	for _, host, more := strings.Cut(module, "."); more; _, host, more = strings.Cut(host, ".") {
		if fqdn, err := Module(host, zone); err == nil {
			return fqdn, true
		}
	}
	return "", false
}

// Toolchain returns the name of the record of Go toolchains.
func Toolchain(zone string) string { return below(toolchainLabel+"."+versionLabel, zone) }

// Status returns the name of the record about the index.
func Status(zone string) string { return below(statusLabel+"."+versionLabel, zone) }

// Updates returns the name of the record that a program's own domain has.
func Updates(domain string) string { return below("_updates", domain) }

func below(label, zone string) string {
	zone = strings.ToLower(strings.TrimSuffix(zone, "."))
	if zone == "" {
		return label + "."
	}
	return label + "." + zone + "."
}

// wireLen is the size of a zone name in wire format.
func wireLen(zone string) int {
	zone = strings.TrimSuffix(zone, ".")
	if zone == "" {
		return 1
	}
	return len(zone) + 2
}

// ParseName reads a name that was asked for, in presentation format and any
// case. It returns [ErrOutside] or [ErrNotCanonical] (wrapped).
func ParseName(qname, zone string) (Name, error) {
	q := strings.ToLower(strings.TrimSuffix(qname, "."))
	z := strings.ToLower(strings.TrimSuffix(zone, "."))
	rest := ""
	switch {
	case q == z:
	case z == "":
		rest = q
	case strings.HasSuffix(q, "."+z):
		rest = q[:len(q)-len(z)-1]
	default:
		return Name{}, fmt.Errorf("%q is %w %q", qname, ErrOutside, zone)
	}
	if rest == "" {
		return Name{Kind: KindOther}, nil
	}
	labels := strings.Split(rest, ".")
	if labels[len(labels)-1] != versionLabel {
		return Name{Kind: KindOther}, nil
	}
	n, err := ParseLabels(labels[:len(labels)-1])
	if err != nil {
		return Name{}, fmt.Errorf("%q is %w", qname, err)
	}
	return n, nil
}

// ParseLabels reads the labels before v0, leftmost first, in lower case.
func ParseLabels(labels []string) (Name, error) {
	var wire []byte
	for _, label := range labels {
		if label == "" || len(label) > maxLabel {
			return Name{}, ErrNotCanonical
		}
		wire = append(append(wire, byte(len(label))), label...)
	}
	kind, path, err := ParseWire(nil, wire)
	return Name{kind, string(path)}, err
}

// ParseWire reads the labels before v0 in wire format, without the root and in
// lower case. It appends the path to dst.
func ParseWire(dst, labels []byte) (Kind, []byte, error) {
	if len(labels) >= maxName {
		return 0, nil, ErrNotCanonical
	}
	var at [maxName / 2]uint8 // where labels start
	n := 0
	for i := 0; i < len(labels); i += 1 + int(labels[i]) {
		if labels[i] == 0 || labels[i] > maxLabel || i+int(labels[i]) >= len(labels) {
			return 0, nil, ErrNotCanonical
		}
		at[n] = uint8(i)
		n++
	}
	label := func(i int) []byte {
		start := int(at[i])
		return labels[start+1 : start+1+int(labels[start])]
	}
	if n == 0 {
		return KindRoot, dst, nil
	}
	if n == 1 {
		switch string(label(0)) {
		case toolchainLabel:
			return KindToolchain, dst, nil
		case statusLabel:
			return KindStatus, dst, nil
		}
	}
	host := n
	for host > 0 && string(label(host-1)) != separator {
		host--
		if !isHostLabel(label(host)) {
			return 0, nil, ErrNotCanonical
		}
	}
	if host == n {
		return 0, nil, ErrNotCanonical
	}
	for i := host; i < n; i++ {
		if i > host {
			dst = append(dst, '.')
		}
		dst = append(dst, label(i)...)
	}
	switch host {
	case 0:
		return KindHost, dst, nil
	case 1:
		return KindSeparator, dst, nil
	}
	for i := host - 2; i >= 0; i-- {
		var ok bool
		if dst, ok = unescape(append(dst, '/'), label(i)); !ok {
			return 0, nil, ErrNotCanonical
		}
	}
	return KindPath, dst, nil
}

func isPlain(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// isHostLabel reports whether the label can be part of a module path's host:
// what module.CheckPath allows there, which has no underscore.
func isHostLabel[T string | []byte](label T) bool {
	if len(label) == 0 || len(label) > maxLabel {
		return false
	}
	for i := range len(label) {
		if !isPlain(label[i]) && label[i] != '-' {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"

// escape writes a path element as a label.
func escape(elem string) string {
	var b strings.Builder
	for i := range len(elem) {
		c := elem[i]
		if isPlain(c) || c == '-' && i > 0 && i < len(elem)-1 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('_')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

// unescape appends the path element that has this label, and reports whether
// there is one.
func unescape(dst, label []byte) ([]byte, bool) {
	for i := 0; i < len(label); i++ {
		c := label[i]
		edge := i == 0 || i == len(label)-1
		switch {
		case isPlain(c), c == '-' && !edge:
			dst = append(dst, c)
		case c == '_' && i+2 < len(label):
			hi, lo := strings.IndexByte(hexDigits, label[i+1]), strings.IndexByte(hexDigits, label[i+2])
			if hi < 0 || lo < 0 {
				return dst, false
			}
			e := byte(hi<<4 | lo)
			edge = i == 0 || i+3 == len(label)
			// Written out when it need not be, or not possible in a path.
			if isPlain(e) || e == '-' && !edge || e == '/' || e == 0 {
				return dst, false
			}
			dst = append(dst, e)
			i += 2
		default:
			return dst, false
		}
	}
	return dst, true
}
