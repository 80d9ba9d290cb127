package discover

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxIterations bounds the work of NSEC3 (RFC 9276).
const maxIterations = 150

// A denial is a proved absence.
type denial struct {
	nxdomain bool // the name does not exist; else it exists without the type
	cut      bool // the name is a delegation (for DS)
	optOut   bool // NSEC3 opt-out: an unsigned delegation may stand here (for DS)
	until    time.Time
	signed   time.Time // the earliest signature of the proof
	proof    string
}

// denied checks the proof in an answer's authority section that the name does
// not exist or does not have the type.
func (c *checker) denied(sets []*rrset, qname string, qtype uint16, ks *keySet) (denial, error) {
	bad := func(kind, format string, args ...any) (denial, error) {
		return denial{}, &BogusError{kind, qname, typeName(qtype), fmt.Sprintf(format, args...)}
	}
	var nsec []*dns.NSEC
	var nsec3 []*dns.NSEC3
	until := c.now.Add(maxTTL)
	var signed time.Time
	var failed error
	for _, s := range sets {
		if s.typ != dns.TypeNSEC && s.typ != dns.TypeNSEC3 || len(s.rrs) == 0 {
			continue
		}
		v, err := c.verify(s, ks)
		if err == nil && v.wildcard != "" {
			err = &BogusError{BadWildcard, s.name, typeName(s.typ), fmt.Sprintf("%s is made from a wildcard, which proves nothing", s)}
		}
		if err != nil {
			failed = err
			continue
		}
		until = earlier(until, v.until)
		if signed.IsZero() || v.signed.Before(signed) {
			signed = v.signed
		}
		// More than one record in a set would be an error of the signer; each is verified.
		for _, rr := range s.rrs {
			switch rr := rr.(type) {
			case *dns.NSEC:
				nsec = append(nsec, rr)
			case *dns.NSEC3:
				nsec3 = append(nsec3, rr)
			}
		}
	}
	d, err := denial{}, error(nil)
	switch {
	case len(nsec) > 0:
		d, err = denyNSEC(nsec, qname, qtype, ks.zone)
	case len(nsec3) > 0:
		d, err = denyNSEC3(nsec3, qname, qtype, ks.zone)
	case failed != nil:
		return denial{}, failed
	default:
		return bad(MissingSignature, "the answer says that there is no %s record of %s, but nothing signed proves it: something on the way forges absences, or removes signatures", typeName(qtype), qname)
	}
	if err != nil {
		if failed != nil {
			return denial{}, failed
		}
		return denial{}, err
	}
	d.until, d.signed = until, signed
	return d, nil
}

func badDenial(qname string, qtype uint16, format string, args ...any) error {
	return &BogusError{BadDenial, qname, typeName(qtype),
		fmt.Sprintf("the answer says that there is no %s record of %s, but its signed proof does not say so: ", typeName(qtype), qname) + fmt.Sprintf(format, args...)}
}

// denyNSEC judges verified NSEC records (RFC 4035, 5.4; RFC 9824).
func denyNSEC(recs []*dns.NSEC, qname string, qtype uint16, zone string) (denial, error) {
	var covering *dns.NSEC
	for _, n := range recs {
		owner := dns.CanonicalName(n.Hdr.Name)
		if owner == qname {
			if has(n.TypeBitMap, dns.TypeNXNAME) {
				return denial{nxdomain: true, proof: "compact denial"}, nil
			}
			if err := typeAbsent(n.TypeBitMap, qname, qtype); err != nil {
				return denial{}, err
			}
			return denial{cut: has(n.TypeBitMap, dns.TypeNS), proof: "NSEC"}, nil
		}
		if covers(owner, n.NextDomain, qname, zone) {
			covering = n
		}
	}
	if covering == nil {
		return denial{}, badDenial(qname, qtype, "no NSEC record is about this name")
	}
	owner := dns.CanonicalName(covering.Hdr.Name)
	if dns.IsSubDomain(owner, qname) && (has(covering.TypeBitMap, dns.TypeNS) && !has(covering.TypeBitMap, dns.TypeSOA) || has(covering.TypeBitMap, dns.TypeDNAME)) {
		return denial{}, badDenial(qname, qtype, "its NSEC record is of a delegation above the name")
	}
	next := dns.CanonicalName(covering.NextDomain)
	if next != qname && dns.IsSubDomain(qname, next) {
		return denial{proof: "NSEC, empty non-terminal"}, nil
	}
	encloser := commonAncestor(qname, owner)
	if b := commonAncestor(qname, next); dns.CountLabel(b) > dns.CountLabel(encloser) {
		encloser = b
	}
	wild := wildcardOf(encloser)
	for _, n := range recs {
		o := dns.CanonicalName(n.Hdr.Name)
		if o == wild {
			if err := typeAbsent(n.TypeBitMap, qname, qtype); err != nil {
				return denial{}, err
			}
			return denial{proof: "NSEC, wildcard without the type"}, nil
		}
		if covers(o, n.NextDomain, wild, zone) {
			return denial{nxdomain: true, proof: "NSEC"}, nil
		}
	}
	return denial{}, badDenial(qname, qtype, "it does not exclude the wildcard %s", wild)
}

// typeAbsent judges the type list of a record that matches the name.
func typeAbsent(types []uint16, qname string, qtype uint16) error {
	switch {
	case has(types, qtype):
		return badDenial(qname, qtype, "it lists the type")
	case has(types, dns.TypeCNAME):
		return badDenial(qname, qtype, "it lists a CNAME record")
	case qtype == dns.TypeDS && has(types, dns.TypeSOA) && qname != ".":
		return badDenial(qname, qtype, "it is of the zone below the delegation")
	case qtype != dns.TypeDS && has(types, dns.TypeNS) && !has(types, dns.TypeSOA):
		return badDenial(qname, qtype, "it is of the zone above a delegation")
	}
	return nil
}

// denyNSEC3 judges verified NSEC3 records (RFC 5155, 8).
func denyNSEC3(recs []*dns.NSEC3, qname string, qtype uint16, zone string) (denial, error) {
	for _, n := range recs {
		if n.Hash != dns.SHA1 || n.Iterations > maxIterations {
			return denial{}, badDenial(qname, qtype, "its NSEC3 parameters (hash %d, %d iterations) are not accepted", n.Hash, n.Iterations)
		}
		if _, rest, _ := strings.Cut(dns.CanonicalName(n.Hdr.Name), "."); rest != zone && !(zone == "." && rest == "") {
			return denial{}, badDenial(qname, qtype, "its NSEC3 record %s is not directly below %s", n.Hdr.Name, zone)
		}
	}
	match := func(name string) *dns.NSEC3 {
		for _, n := range recs {
			if n.Match(name) {
				return n
			}
		}
		return nil
	}
	cover := func(name string) *dns.NSEC3 {
		for _, n := range recs {
			if coversHash(n, name) {
				return n
			}
		}
		return nil
	}
	if n := match(qname); n != nil {
		if err := typeAbsent(n.TypeBitMap, qname, qtype); err != nil {
			return denial{}, err
		}
		return denial{cut: has(n.TypeBitMap, dns.TypeNS), proof: "NSEC3"}, nil
	}
	// The closest encloser is the longest ancestor that exists.
	closer, encloser := qname, qname
	var enc *dns.NSEC3
	for encloser != zone {
		closer, encloser = encloser, parent(encloser)
		if enc = match(encloser); enc != nil {
			break
		}
	}
	if enc == nil {
		return denial{}, badDenial(qname, qtype, "no NSEC3 record is of an ancestor of this name")
	}
	if has(enc.TypeBitMap, dns.TypeDNAME) || has(enc.TypeBitMap, dns.TypeNS) && !has(enc.TypeBitMap, dns.TypeSOA) {
		return denial{}, badDenial(qname, qtype, "its NSEC3 record is of a delegation above the name")
	}
	n := cover(closer)
	if n == nil {
		return denial{}, badDenial(qname, qtype, "no NSEC3 record excludes %s", closer)
	}
	if n.Flags&1 != 0 {
		if qtype == dns.TypeDS {
			return denial{optOut: true, proof: "NSEC3 opt-out"}, nil
		}
		return denial{}, badDenial(qname, qtype, "its NSEC3 record has the opt-out flag, under which unsigned names may exist")
	}
	wild := wildcardOf(encloser)
	if w := match(wild); w != nil {
		if err := typeAbsent(w.TypeBitMap, qname, qtype); err != nil {
			return denial{}, err
		}
		return denial{proof: "NSEC3, wildcard without the type"}, nil
	}
	if cover(wild) == nil {
		return denial{}, badDenial(qname, qtype, "it does not exclude the wildcard %s", wild)
	}
	return denial{nxdomain: true, proof: "NSEC3"}, nil
}

// wildcardProof checks that a set made from a wildcard stands for a name that
// does not exist itself (RFC 4035, 5.3.4).
func (c *checker) wildcardProof(sets []*rrset, qname, wildcard string, ks *keySet) error {
	encloser := strings.TrimPrefix(wildcard, "*.")
	if encloser == "" {
		encloser = "."
	}
	closer := qname
	for parent(closer) != encloser && closer != "." {
		closer = parent(closer)
	}
	var failed error
	for _, s := range sets {
		if s.typ != dns.TypeNSEC && s.typ != dns.TypeNSEC3 || len(s.rrs) == 0 {
			continue
		}
		v, err := c.verify(s, ks)
		if err != nil || v.wildcard != "" {
			failed = err
			continue
		}
		for _, rr := range s.rrs {
			switch rr := rr.(type) {
			case *dns.NSEC:
				owner := dns.CanonicalName(rr.Hdr.Name)
				if covers(owner, rr.NextDomain, qname, ks.zone) && !dns.IsSubDomain(qname, dns.CanonicalName(rr.NextDomain)) {
					return nil
				}
			case *dns.NSEC3:
				if rr.Hash == dns.SHA1 && rr.Iterations <= maxIterations && rr.Flags&1 == 0 && coversHash(rr, closer) {
					return nil
				}
			}
		}
	}
	if failed != nil {
		return failed
	}
	return &BogusError{BadWildcard, qname, "", fmt.Sprintf("the answer for %s is made from the wildcard %s, without proof that the name itself does not exist", qname, wildcard)}
}

// coversHash is NSEC3.Cover without the record's own name, which exists.
func coversHash(n *dns.NSEC3, name string) bool { return n.Cover(name) && !n.Match(name) }

func has(types []uint16, t uint16) bool { return slices.Contains(types, t) }

// covers reports whether an NSEC record says that nothing exists at the name.
func covers(owner, next, name, zone string) bool {
	if !dns.IsSubDomain(zone, owner) {
		return false
	}
	next = dns.CanonicalName(next)
	if compare(owner, name) >= 0 {
		return false
	}
	return next == zone || compare(name, next) < 0
}

// compare orders names canonically (RFC 4034, 6.1).
func compare(a, b string) int {
	la, lb := wireLabels(a), wireLabels(b)
	for i := 1; i <= min(len(la), len(lb)); i++ {
		if c := bytes.Compare(la[len(la)-i], lb[len(lb)-i]); c != 0 {
			return c
		}
	}
	return len(la) - len(lb)
}

// wireLabels returns the labels of a name, in lower case and without escapes.
func wireLabels(name string) [][]byte {
	var buf [256]byte
	n, err := dns.PackDomainName(dns.CanonicalName(name), buf[:], 0, nil, false)
	if err != nil {
		return nil
	}
	var out [][]byte
	for i := 0; i < n && buf[i] != 0; i += int(buf[i]) + 1 {
		out = append(out, bytes.ToLower(buf[i+1:i+1+int(buf[i])]))
	}
	return out
}

func parent(name string) string {
	off, end := dns.NextLabel(name, 0)
	if end || name == "." {
		return "."
	}
	return name[off:]
}

func wildcardOf(encloser string) string {
	if encloser == "." {
		return "*."
	}
	return "*." + encloser
}

func commonAncestor(a, b string) string {
	n := dns.CompareDomainName(a, b)
	if n == 0 {
		return "."
	}
	idx := dns.Split(a)
	return a[idx[len(idx)-n]:]
}
