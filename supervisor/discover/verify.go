package discover

import (
	"encoding/base64"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// clockSkew is how far this machine's clock and a signer's may be apart.
	clockSkew = 5 * time.Minute
	// maxVerify bounds the signatures checked for one question, so that an
	// answer made of many keys with one tag costs no time.
	maxVerify = 64
	maxKeys   = 32
	maxTTL    = 24 * time.Hour
)

// A keySet holds the verified keys of one zone.
type keySet struct {
	zone  string // canonical
	keys  []*dns.DNSKEY
	chain []Link
	until time.Time // by TTL and signature
}

// A checker verifies the answers to one question at one instant.
type checker struct {
	now   time.Time
	tries int
	// crypto checks one signature; nil is [dns.RRSIG.Verify]. Only fuzzing,
	// which knows all good signatures, puts a faster one here.
	crypto func(*dns.RRSIG, *dns.DNSKEY, []dns.RR) error
}

// A rrset is the records of one name and type with their signatures.
type rrset struct {
	name string // canonical
	typ  uint16
	rrs  []dns.RR
	sigs []*dns.RRSIG
}

func (s *rrset) String() string { return typeName(s.typ) + " " + s.name }

func typeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return fmt.Sprintf("TYPE%d", t)
}

// group sorts the records of a section into sets. Records of other classes are
// dropped.
func group(section []dns.RR) []*rrset {
	type key struct {
		name string
		typ  uint16
	}
	sets := map[key]*rrset{}
	var order []*rrset
	get := func(name string, typ uint16) *rrset {
		k := key{dns.CanonicalName(name), typ}
		s := sets[k]
		if s == nil {
			s = &rrset{name: k.name, typ: typ}
			sets[k] = s
			order = append(order, s)
		}
		return s
	}
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			continue
		}
		if sig, ok := rr.(*dns.RRSIG); ok {
			s := get(h.Name, sig.TypeCovered)
			s.sigs = append(s.sigs, sig)
			continue
		}
		s := get(h.Name, h.Rrtype)
		s.rrs = append(s.rrs, rr)
	}
	return order
}

func find(sets []*rrset, name string, typ uint16) *rrset {
	for _, s := range sets {
		if s.name == name && s.typ == typ && len(s.rrs) > 0 {
			return s
		}
	}
	return nil
}

// A verified set says until when it holds.
type verified struct {
	until    time.Time
	wildcard string // "*.x." when the set was made from a wildcard, else ""
	key      *dns.DNSKEY
	signed   time.Time // inception of the signature
	expires  time.Time // of the signature
}

// verify checks the set with the zone's keys. It needs one good signature.
func (c *checker) verify(s *rrset, ks *keySet) (verified, error) {
	if len(s.sigs) == 0 {
		return verified{}, &BogusError{MissingSignature, s.name, typeName(s.typ),
			fmt.Sprintf("the %s record of %s has no signature, though %s is a signed zone: something on the way removes signatures or makes records up", typeName(s.typ), s.name, ks.zone)}
	}
	var worst *BogusError
	for _, sig := range s.sigs {
		v, err := c.verifySig(s, sig, ks)
		if err == nil {
			return v, nil
		}
		if worst == nil || rank(err.Kind) > rank(worst.Kind) {
			worst = err
		}
	}
	return verified{}, worst
}

// rank orders failures by how much they tell: with several signatures the
// failure of the one that came nearest is reported.
func rank(kind string) int {
	return 1 + strings.Index("algorithm wrong_signer wrong_key bad_signature not_yet_valid expired too_much_work", kind)
}

func (c *checker) verifySig(s *rrset, sig *dns.RRSIG, ks *keySet) (verified, *BogusError) {
	bad := func(kind, format string, args ...any) (verified, *BogusError) {
		return verified{}, &BogusError{kind, s.name, typeName(s.typ), fmt.Sprintf(format, args...)}
	}
	if signer := dns.CanonicalName(sig.SignerName); signer != ks.zone {
		return bad(WrongSigner, "the signature of %s is by the zone %s; it must be by %s", s, signer, ks.zone)
	}
	if !dns.IsSubDomain(ks.zone, s.name) {
		return bad(WrongSigner, "%s is not within the zone %s that signs it", s, ks.zone)
	}
	if !supportedAlgorithm(sig.Algorithm) {
		return bad(Algorithm, "the signature of %s uses algorithm %s, which is not accepted", s, algorithmName(sig.Algorithm))
	}
	labels := dns.CountLabel(s.name)
	own := labels
	if strings.HasPrefix(s.name, "*.") {
		own--
	}
	if int(sig.Labels) > own {
		return bad(BadSignature, "the signature of %s counts %d labels in a name of %d", s, sig.Labels, own)
	}
	inception, expiration := sigTime(sig.Inception, c.now), sigTime(sig.Expiration, c.now)
	if expiration.Before(inception) {
		return bad(BadSignature, "the signature of %s ends before it begins", s)
	}
	if c.now.After(expiration.Add(clockSkew)) {
		return bad(Expired, "the signature of %s expired on %s, %s ago: the zone is not being signed any more, an old answer is being replayed, or this machine's clock (%s) is ahead",
			s, stamp(expiration), ago(c.now.Sub(expiration)), stamp(c.now))
	}
	if c.now.Before(inception.Add(-clockSkew)) {
		return bad(NotYetValid, "the signature of %s is valid only from %s, in %s: this machine's clock (%s) is behind, or the signer's ahead",
			s, stamp(inception), ago(inception.Sub(c.now)), stamp(c.now))
	}
	tried, tag := false, sig.KeyTag
	for _, k := range ks.keys {
		if k.KeyTag() != tag || k.Algorithm != sig.Algorithm || k.Flags&dns.REVOKE != 0 {
			continue
		}
		if c.tries++; c.tries > maxVerify {
			return bad(TooMuchWork, "the answer for %s needs more than %d signature checks: it is made to cost time", s, maxVerify)
		}
		tried = true
		check := c.crypto
		if check == nil {
			check = (*dns.RRSIG).Verify
		}
		if err := check(sig, k, s.rrs); err != nil {
			if errors.Is(err, dns.ErrRRset) {
				return bad(BadSignature, "the signature of %s is for another set of records", s)
			}
			continue
		}
		v := verified{key: k, signed: inception, expires: expiration}
		ttl := min(time.Duration(sig.OrigTtl)*time.Second, maxTTL)
		for _, rr := range s.rrs {
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
		v.until = c.now.Add(ttl)
		if expiration.Before(v.until) {
			v.until = expiration
		}
		if int(sig.Labels) < own {
			idx := dns.Split(s.name)
			if sig.Labels == 0 {
				v.wildcard = "*."
			} else {
				v.wildcard = "*." + s.name[idx[labels-int(sig.Labels)]:]
			}
		}
		return v, nil
	}
	if tried {
		return bad(BadSignature, "the signature of %s by key %d of %s does not verify: the record was changed on the way, or signed by another key with that number", s, tag, ks.zone)
	}
	return bad(WrongKey, "%s is signed with key %d (%s), which is not a key of %s (it has %s): somebody else signed it, or the zone changed its keys and an old answer is still around",
		s, tag, algorithmName(sig.Algorithm), ks.zone, tagList(ks.keys))
}

// verifyKeys makes the keys of a zone trusted: one of them must be named by a
// DS record and sign all of them.
func (c *checker) verifyKeys(sets []*rrset, zone string, ds []*dns.DS, from string) (*keySet, error) {
	bad := func(kind, format string, args ...any) error {
		return &BogusError{kind, zone, "DNSKEY", fmt.Sprintf(format, args...)}
	}
	s := find(sets, zone, dns.TypeDNSKEY)
	if s == nil {
		return nil, bad(MissingSignature, "%s has no DNSKEY record, though %s says that it is signed: something on the way removes it, or the zone is not signed any more", zone, from)
	}
	if len(s.rrs) > maxKeys {
		return nil, bad(TooMuchWork, "%s has %d DNSKEY records; at most %d are looked at", zone, len(s.rrs), maxKeys)
	}
	all := &keySet{zone: zone}
	for _, rr := range s.rrs {
		k := rr.(*dns.DNSKEY)
		if k.Flags&dns.ZONE == 0 || k.Protocol != 3 || !supportedAlgorithm(k.Algorithm) || !saneKey(k) {
			continue
		}
		k.Hdr.Name = zone // its case must not matter to the comparison with the signer's name
		all.keys = append(all.keys, k)
	}
	entry := &keySet{zone: zone}
	var supported []*dns.DS
	for _, d := range ds {
		if supportedDS(d) {
			supported = append(supported, d)
		}
	}
	for _, k := range all.keys {
		if k.Flags&dns.REVOKE == 0 && matchesDS(k, supported) {
			entry.keys = append(entry.keys, k)
		}
	}
	if len(entry.keys) == 0 {
		return nil, bad(WrongKey, "no key of %s is the one that %s names: the zone has %s, expected is %s. Somebody else answers for the zone, or it changed its key without the new one being published there",
			zone, from, tagList(all.keys), dsList(supported))
	}
	v, err := c.verify(s, entry)
	if err != nil {
		return nil, err
	}
	if v.wildcard != "" {
		return nil, bad(BadWildcard, "the DNSKEY records of %s are made from a wildcard", zone)
	}
	all.until = v.until
	all.chain = []Link{{Zone: zone, KeyTag: v.key.KeyTag(), Algorithm: v.key.Algorithm, By: from, Expires: v.expires}}
	return all, nil
}

func matchesDS(k *dns.DNSKEY, ds []*dns.DS) bool {
	tag := k.KeyTag()
	for _, d := range ds {
		if d.KeyTag != tag || d.Algorithm != k.Algorithm {
			continue
		}
		if got := k.ToDS(d.DigestType); got != nil && strings.EqualFold(got.Digest, d.Digest) {
			return true
		}
	}
	return false
}

// saneKey bounds the size of a key, and so the work of a check.
func saneKey(k *dns.DNSKEY) bool {
	raw, err := base64.StdEncoding.DecodeString(k.PublicKey)
	if err != nil {
		return false
	}
	switch k.Algorithm {
	case dns.RSASHA256:
		return len(raw) >= 128 && len(raw) <= 520 // 1024 to 4096 bits
	case dns.ECDSAP256SHA256:
		return len(raw) == 64
	case dns.ECDSAP384SHA384:
		return len(raw) == 96
	case dns.ED25519:
		return len(raw) == 32
	}
	return false
}

// sigTime reads a time of a signature, which has 32 bits and wraps (RFC 4034, 3.1.5).
func sigTime(t uint32, now time.Time) time.Time {
	n := now.Unix()
	return time.Unix(n+int64(int32(t-uint32(n))), 0).UTC()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func algorithmName(a uint8) string {
	if s, ok := dns.AlgorithmToString[a]; ok {
		return fmt.Sprintf("%d (%s)", a, s)
	}
	return fmt.Sprint(a)
}

func tagList(keys []*dns.DNSKEY) string {
	var tags []string
	for _, k := range keys {
		tags = append(tags, fmt.Sprint(k.KeyTag()))
	}
	return list("key", tags)
}

func dsList(ds []*dns.DS) string {
	var tags []string
	for _, d := range ds {
		tags = append(tags, fmt.Sprint(d.KeyTag))
	}
	return list("key", tags)
}

func list(noun string, items []string) string {
	sort.Strings(items)
	switch len(items) {
	case 0:
		return "no usable " + noun
	case 1:
		return noun + " " + items[0]
	}
	return noun + "s " + strings.Join(items, ", ")
}
