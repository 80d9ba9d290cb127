package discover

import (
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// ErrNoZone is wrapped when the zone above signs that the zone does not exist.
var ErrNoZone = errors.New("no such zone")

// A question is a name and a type.
type question struct {
	name string // canonical
	typ  uint16
}

// chainQuestions returns all that can be needed to verify the keys of the
// deepest zone at or above name, so that it can be asked at once.
func chainQuestions(anchor, name string) []question {
	qs := []question{{anchor, dns.TypeDNSKEY}}
	for _, n := range between(anchor, name) {
		qs = append(qs, question{n, dns.TypeDS}, question{n, dns.TypeDNSKEY})
	}
	return qs
}

// between returns the names below anchor down to name, highest first.
func between(anchor, name string) []string {
	var out []string
	for n := name; n != anchor && n != "."; n = parent(n) {
		out = append([]string{n}, out...)
	}
	return out
}

// walk verifies the chain of keys from the anchor down to the deepest zone at
// or above name. get returns the answer to one of chainQuestions.
func (c *checker) walk(a Anchors, name string, get func(question) (*dns.Msg, error)) (*keySet, error) {
	msg, err := get(question{a.Zone, dns.TypeDNSKEY})
	if err != nil {
		return nil, err
	}
	cur, err := c.verifyKeys(group(msg.Answer), a.Zone, a.DS, a.From)
	if err != nil {
		return nil, err
	}
	for _, n := range between(a.Zone, name) {
		msg, err := get(question{n, dns.TypeDS})
		if err != nil {
			return nil, err
		}
		next, until, err := c.step(cur, n, msg, get)
		if err != nil {
			return nil, err
		}
		next.until = earlier(next.until, earlier(until, cur.until))
		cur = next
	}
	return cur, nil
}

// step judges the answer for the DS record of n, a name in the zone of cur. It
// returns cur's keys when n is no zone of its own.
func (c *checker) step(cur *keySet, n string, msg *dns.Msg, get func(question) (*dns.Msg, error)) (*keySet, time.Time, error) {
	s := find(group(msg.Answer), n, dns.TypeDS)
	if s == nil {
		d, err := c.denied(group(msg.Ns), n, dns.TypeDS, cur)
		if err != nil {
			return nil, time.Time{}, err
		}
		switch {
		case d.nxdomain:
			return nil, time.Time{}, fmt.Errorf("%w: %s signs that %s does not exist; check its spelling", ErrNoZone, zoneName(cur.zone), n)
		case d.cut || d.optOut:
			return nil, time.Time{}, &InsecureError{n, fmt.Sprintf(
				"%s is delegated without a DS record in %s, so nothing below it can be validated: its operator has to publish a DS record there, or pin the zone's key with an anchor file", n, zoneName(cur.zone))}
		}
		same := *cur
		return &same, d.until, nil
	}
	v, err := c.verify(s, cur)
	if err != nil {
		return nil, time.Time{}, err
	}
	if v.wildcard != "" {
		return nil, time.Time{}, &BogusError{BadWildcard, n, "DS", fmt.Sprintf("the DS record of %s is made from a wildcard", n)}
	}
	var ds []*dns.DS
	usable := false
	for _, rr := range s.rrs[:min(len(s.rrs), maxAnchors)] {
		d := rr.(*dns.DS)
		ds = append(ds, d)
		usable = usable || supportedDS(d)
	}
	if !usable {
		return nil, time.Time{}, &InsecureError{n, fmt.Sprintf(
			"%s is signed only with algorithms or digests that are not accepted (accepted: algorithms 8, 13, 14, 15 with SHA-256 or SHA-384)", n)}
	}
	msg, err = get(question{n, dns.TypeDNSKEY})
	if err != nil {
		return nil, time.Time{}, err
	}
	next, err := c.verifyKeys(group(msg.Answer), n, ds, "the DS record in "+zoneName(cur.zone))
	if err != nil {
		return nil, time.Time{}, err
	}
	next.chain = append(append([]Link(nil), cur.chain...), next.chain...)
	return next, v.until, nil
}

func zoneName(z string) string {
	if z == "." {
		return "the root zone"
	}
	return z
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// A text is the verified answer to a TXT question.
type text struct {
	txt      string
	found    bool
	nxdomain bool // when not found: the name does not exist at all
	until    time.Time
	proof    string // of an absence
	signed   time.Time
	origTTL  time.Duration
	ttl      time.Duration // as received
}

// txt verifies the answer to a TXT question.
func (c *checker) txt(msg *dns.Msg, qname string, ks *keySet) (text, error) {
	sets := group(msg.Answer)
	s := find(sets, qname, dns.TypeTXT)
	if s == nil {
		if find(sets, qname, dns.TypeCNAME) != nil {
			return text{}, &BogusError{BadMessage, qname, "TXT", fmt.Sprintf("%s is an alias (CNAME), which a zone of versions does not have", qname)}
		}
		d, err := c.denied(group(msg.Ns), qname, dns.TypeTXT, ks)
		return text{nxdomain: d.nxdomain, until: d.until, signed: d.signed, proof: d.proof}, err
	}
	v, err := c.verify(s, ks)
	if err != nil {
		return text{}, err
	}
	if v.wildcard != "" {
		if err := c.wildcardProof(group(msg.Ns), qname, v.wildcard, ks); err != nil {
			return text{}, err
		}
	}
	t, err := onlyTXT(s)
	t.until, t.signed = v.until, v.signed
	return t, err
}

// onlyTXT reads a set of exactly one TXT record.
func onlyTXT(s *rrset) (text, error) {
	if len(s.rrs) != 1 {
		return text{}, &malformedError{fmt.Sprintf("%s has %d TXT records; the format has one", s.name, len(s.rrs))}
	}
	rr := s.rrs[0].(*dns.TXT)
	if len(rr.Txt) != 1 {
		return text{}, &malformedError{fmt.Sprintf("the TXT record of %s has %d strings; the format has one", s.name, len(rr.Txt))}
	}
	t := text{found: true, txt: unescape(rr.Txt[0]), ttl: time.Duration(rr.Hdr.Ttl) * time.Second}
	for _, sig := range s.sigs {
		t.origTTL = time.Duration(sig.OrigTtl) * time.Second
	}
	return t, nil
}

// A malformedError is a validated answer that is not of the format.
type malformedError struct{ reason string }

func (e *malformedError) Error() string        { return e.reason }
func (e *malformedError) Is(target error) bool { return target == ErrMalformed }

// unescape undoes the presentation format that the DNS library keeps strings in.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b = append(b, s[i])
			continue
		}
		if i+3 < len(s) && digit(s[i+1]) && digit(s[i+2]) && digit(s[i+3]) {
			b = append(b, byte(int(s[i+1]-'0')*100+int(s[i+2]-'0')*10+int(s[i+3]-'0')))
			i += 3
			continue
		}
		i++
		b = append(b, s[i])
	}
	return string(b)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// believe reads the answer of a resolver on this machine that validates itself.
func believe(msg *dns.Msg, qname string, now time.Time) (text, error) {
	if !msg.AuthenticatedData {
		return text{}, &BogusError{NotAuthenticated, qname, "TXT",
			fmt.Sprintf("the resolver does not say that it validated the answer for %s (no AD bit): the zone is not signed for it, or it does not validate; set trust = \"dnssec\" to validate here", qname)}
	}
	if s := find(group(msg.Answer), qname, dns.TypeTXT); s != nil {
		t, err := onlyTXT(s)
		t.until = now.Add(min(t.ttl, maxTTL))
		return t, err
	}
	t := text{nxdomain: msg.Rcode == dns.RcodeNameError, until: now.Add(time.Minute), proof: "AD bit"}
	for _, s := range group(msg.Ns) {
		if s.name == qname && s.typ == dns.TypeNSEC && len(s.rrs) == 1 && has(s.rrs[0].(*dns.NSEC).TypeBitMap, dns.TypeNXNAME) {
			t.nxdomain = true
		}
	}
	return t, nil
}
