package discover

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// rootAnchors are the DS records of the root zone's key signing keys of 2017
// and 2024, as published at https://data.iana.org/root-anchors/.
const rootAnchors = `
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
`

const (
	maxAnchorFile = 1 << 20
	maxAnchors    = 64
)

// Anchors are trusted keys, as DS records of one zone.
type Anchors struct {
	Zone string // canonical
	DS   []*dns.DS
	From string // for people: "the built-in root anchors", "file x"
}

// BuiltinAnchors returns the root zone's keys.
func BuiltinAnchors() Anchors {
	a, err := ParseAnchors([]byte(rootAnchors), time.Time{})
	if err != nil {
		panic(err) // a constant of this file, read by every test
	}
	a.From = "the built-in root anchors"
	return a
}

// ReadAnchors reads a file with trust anchors.
func ReadAnchors(file string, now time.Time) (Anchors, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return Anchors{}, fmt.Errorf("reading the trust anchor: %w", err)
	}
	if fi.Size() > maxAnchorFile {
		return Anchors{}, fmt.Errorf("reading the trust anchor: %s is %d bytes long; an anchor file has at most %d", file, fi.Size(), maxAnchorFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Anchors{}, fmt.Errorf("reading the trust anchor: %w", err)
	}
	a, err := ParseAnchors(data, now)
	if err != nil {
		return Anchors{}, fmt.Errorf("reading the trust anchor %s: %w", file, err)
	}
	a.From = "file " + file
	return a, nil
}

// ParseAnchors reads trust anchors in one of three forms: DS or DNSKEY records
// as in a zone file; a trust-anchors (or trusted-keys) block as BIND and delv
// take it; the XML of RFC 7958, of which only the keys valid at now count. All
// must be of one zone.
func ParseAnchors(text []byte, now time.Time) (Anchors, error) {
	var ds []*dns.DS
	var err error
	s := string(text)
	switch trimmed := strings.TrimSpace(s); {
	case strings.HasPrefix(trimmed, "<"):
		ds, err = anchorsXML(text, now)
	case strings.ContainsRune(trimmed, '{'):
		ds, err = anchorsBlock(s)
	default:
		ds, err = anchorsZone(s)
	}
	if err != nil {
		return Anchors{}, err
	}
	if len(ds) == 0 {
		return Anchors{}, errors.New("it holds no DS and no DNSKEY record")
	}
	if len(ds) > maxAnchors {
		return Anchors{}, fmt.Errorf("it holds %d keys; at most %d are allowed", len(ds), maxAnchors)
	}
	zone := dns.CanonicalName(ds[0].Hdr.Name)
	usable := 0
	for _, d := range ds {
		if z := dns.CanonicalName(d.Hdr.Name); z != zone {
			return Anchors{}, fmt.Errorf("it holds keys of two zones, %s and %s", zone, z)
		}
		d.Hdr.Name = zone
		d.Digest = strings.ToLower(d.Digest)
		if supportedDS(d) {
			usable++
		}
	}
	if usable == 0 {
		return Anchors{}, fmt.Errorf("none of its keys has an algorithm (8, 13, 14 or 15) and digest (SHA-256 or SHA-384) that is accepted")
	}
	return Anchors{Zone: zone, DS: ds}, nil
}

func keyDS(k *dns.DNSKEY) (*dns.DS, error) {
	if k.Flags&dns.ZONE == 0 || k.Protocol != 3 {
		return nil, fmt.Errorf("the DNSKEY of %s with flags %d is not a zone key", k.Hdr.Name, k.Flags)
	}
	if _, err := base64.StdEncoding.DecodeString(k.PublicKey); err != nil {
		return nil, fmt.Errorf("the DNSKEY of %s is not base64: %w", k.Hdr.Name, err)
	}
	d := k.ToDS(dns.SHA256)
	if d == nil {
		return nil, fmt.Errorf("the DNSKEY of %s cannot be read", k.Hdr.Name)
	}
	return d, nil
}

// anchorsBlock reads `trust-anchors { name static-ds tag alg digest "hex"; … };`
// and its variants with initial-ds, static-key, initial-key, and the older
// trusted-keys and managed-keys.
func anchorsBlock(text string) ([]*dns.DS, error) {
	tokens, err := blockTokens(text)
	if err != nil {
		return nil, err
	}
	var out []*dns.DS
	next := func() string {
		if len(tokens) == 0 {
			return ""
		}
		t := tokens[0]
		tokens = tokens[1:]
		return t
	}
	for len(tokens) > 0 {
		kind := next()
		if kind == ";" {
			continue
		}
		if kind != "trust-anchors" && kind != "trusted-keys" && kind != "managed-keys" {
			return nil, fmt.Errorf("%.40q is not trust-anchors", kind)
		}
		if t := next(); t != "{" {
			return nil, fmt.Errorf("%s is not followed by {", kind)
		}
		for {
			var entry []string
			t := next()
			for ; t != "" && t != ";" && t != "}"; t = next() {
				entry = append(entry, t)
			}
			if len(entry) > 0 {
				d, err := blockEntry(entry)
				if err != nil {
					return nil, err
				}
				out = append(out, d)
			}
			if t == "" {
				return nil, fmt.Errorf("%s is not closed by }", kind)
			}
			if t == "}" {
				break
			}
			if len(out) > maxAnchors {
				return out, nil
			}
		}
	}
	return out, nil
}

func blockEntry(f []string) (*dns.DS, error) {
	zone := f[0]
	if _, ok := dns.IsDomainName(zone); !ok || zone == "" {
		return nil, fmt.Errorf("%.100q is not the name of a zone", zone)
	}
	isDS := false
	rest := f[1:]
	if len(rest) > 0 {
		switch rest[0] {
		case "static-ds", "initial-ds":
			isDS = true
			rest = rest[1:]
		case "static-key", "initial-key":
			rest = rest[1:]
		}
	}
	return anchorFields(zone, isDS, rest)
}

// anchorFields makes an anchor of the fields of a DS or of a DNSKEY record.
func anchorFields(zone string, isDS bool, f []string) (*dns.DS, error) {
	if len(f) < 4 {
		return nil, fmt.Errorf("the trust anchor of %s has %d fields instead of 4 behind its kind", zone, len(f))
	}
	var num [3]uint64
	for i, bits := range []int{16, 8, 8} {
		n, err := strconv.ParseUint(f[i], 10, bits)
		if err != nil {
			return nil, fmt.Errorf("the trust anchor of %s: %.40q is not a number in range", zone, f[i])
		}
		num[i] = n
	}
	data := strings.Join(f[3:], "")
	if isDS {
		return newDS(zone, uint16(num[0]), uint8(num[1]), uint8(num[2]), data)
	}
	return keyDS(&dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: dns.CanonicalName(zone), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET},
		Flags: uint16(num[0]), Protocol: uint8(num[1]), Algorithm: uint8(num[2]), PublicKey: data,
	})
}

func newDS(zone string, tag uint16, alg, digestType uint8, digest string) (*dns.DS, error) {
	if _, err := hex.DecodeString(digest); err != nil {
		return nil, fmt.Errorf("the trust anchor of %s: digest: %w", zone, err)
	}
	return &dns.DS{
		Hdr:    dns.RR_Header{Name: dns.CanonicalName(zone), Rrtype: dns.TypeDS, Class: dns.ClassINET},
		KeyTag: tag, Algorithm: alg, DigestType: digestType, Digest: strings.ToLower(digest),
	}, nil
}

// blockTokens splits BIND configuration text, without its comments. A quoted
// string is one token without white space inside.
func blockTokens(s string) ([]string, error) {
	var out []string
	for len(s) > 0 {
		switch {
		case strings.ContainsRune(" \t\r\n", rune(s[0])):
			s = s[1:]
		case s[0] == '#' || strings.HasPrefix(s, "//"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*"):
			_, rest, ok := strings.Cut(s, "*/")
			if !ok {
				return nil, errors.New("a comment is not closed")
			}
			s = rest
		case strings.ContainsRune("{};", rune(s[0])):
			out = append(out, s[:1])
			s = s[1:]
		case s[0] == '"':
			text, rest, ok := strings.Cut(s[1:], `"`)
			if !ok {
				return nil, errors.New("a quotation mark is not closed")
			}
			out = append(out, strings.Join(strings.Fields(text), ""))
			s = rest
		default:
			n := strings.IndexAny(s, " \t\r\n{};\"")
			if n < 0 {
				n = len(s)
			}
			out = append(out, s[:n])
			s = s[n:]
		}
	}
	return out, nil
}

// supportedAlgorithm reports whether signatures of the algorithm are accepted:
// RSA/SHA-256, ECDSA P-256 and P-384, Ed25519. The others are deprecated, or
// not in use.
func supportedAlgorithm(a uint8) bool {
	return a == dns.RSASHA256 || a == dns.ECDSAP256SHA256 || a == dns.ECDSAP384SHA384 || a == dns.ED25519
}

// supportedDS: SHA-1 digests are not accepted (RFC 8624).
func supportedDS(d *dns.DS) bool {
	return supportedAlgorithm(d.Algorithm) && (d.DigestType == dns.SHA256 || d.DigestType == dns.SHA384)
}
