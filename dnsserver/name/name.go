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
	if len(labels) == 0 {
		return Name{Kind: KindRoot}, nil
	}
	if len(labels) == 1 {
		switch labels[0] {
		case toolchainLabel:
			return Name{Kind: KindToolchain}, nil
		case statusLabel:
			return Name{Kind: KindStatus}, nil
		}
	}
	var b strings.Builder
	hostStart := len(labels)
	for hostStart > 0 && labels[hostStart-1] != separator {
		hostStart--
		if !isHostLabel(labels[hostStart]) {
			return Name{}, ErrNotCanonical
		}
	}
	if hostStart == len(labels) {
		return Name{}, ErrNotCanonical
	}
	for i, label := range labels[hostStart:] {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(label)
	}
	switch hostStart {
	case 0:
		return Name{KindHost, b.String()}, nil
	case 1:
		return Name{KindSeparator, b.String()}, nil
	}
	for i := hostStart - 2; i >= 0; i-- {
		b.WriteByte('/')
		if !unescape(&b, labels[i]) {
			return Name{}, ErrNotCanonical
		}
	}
	return Name{KindPath, b.String()}, nil
}

func isPlain(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// isHostLabel reports whether the label can be part of a module path's host:
// what module.CheckPath allows there, which has no underscore.
func isHostLabel(label string) bool {
	if label == "" || len(label) > maxLabel {
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
func unescape(b *strings.Builder, label string) bool {
	if label == "" || len(label) > maxLabel {
		return false
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		edge := i == 0 || i == len(label)-1
		switch {
		case isPlain(c), c == '-' && !edge:
			b.WriteByte(c)
		case c == '_' && i+2 < len(label):
			hi, lo := strings.IndexByte(hexDigits, label[i+1]), strings.IndexByte(hexDigits, label[i+2])
			if hi < 0 || lo < 0 {
				return false
			}
			e := byte(hi<<4 | lo)
			edge = i == 0 || i+3 == len(label)
			// Written out when it need not be, or not possible in a path.
			if isPlain(e) || e == '-' && !edge || e == '/' || e == 0 {
				return false
			}
			b.WriteByte(e)
			i += 2
		default:
			return false
		}
	}
	return true
}
