package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A Pin is a zone's own keys as they are found now, to be kept as its anchor.
type Pin struct {
	Zone    string // canonical
	DS      []*dns.DS
	Chain   []Link   // from the root zone's keys down to the zone; nil when nothing proves the keys
	Why     error    // why there is no chain
	Sources []string // that gave them, all the same
}

// Proved reports whether the keys were validated.
func (p Pin) Proved() bool { return p.Chain != nil }

// Keys names the keys, for people.
func (p Pin) Keys() string {
	var out []string
	for _, d := range p.DS {
		out = append(out, fmt.Sprintf("key %d (algorithm %s), SHA-256 %s", d.KeyTag, algorithmName(d.Algorithm), strings.ToUpper(d.Digest)))
	}
	return strings.Join(out, "\n")
}

// Text is the anchor file.
func (p Pin) Text(now time.Time) string {
	how := "accepted without proof, as the first that was seen"
	if p.Proved() {
		how = proof(p.Chain)
	}
	b := fmt.Sprintf("; Keys of %s, pinned on %s: %s.\n", p.Zone, stamp(now), how)
	for _, d := range p.DS {
		b += d.String() + "\n"
	}
	return b
}

// FindPin asks all sources of the configuration's zone for its keys. A chain
// begins at the configuration's anchor, or at the built-in root keys. It fails
// when a source gives none, when they differ, when the keys do not sign
// themselves, or when a chain is there and broken: then somebody lies, and
// nothing may be trusted on first use.
func FindPin(ctx context.Context, cfg Config, now time.Time) (Pin, error) {
	if !isZone(cfg.Zone) {
		return Pin{}, fmt.Errorf("discovery: zone is %q; it must be the name of the zone that lists versions", cfg.Zone)
	}
	def := DefaultConfig()
	if len(cfg.Sources) == 0 {
		cfg.Sources = def.Sources
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = def.Timeout
	}
	anchors := BuiltinAnchors()
	if cfg.Anchor != "" {
		var err error
		if anchors, err = ReadAnchors(cfg.Anchor, now); err != nil {
			return Pin{}, fmt.Errorf("discovery: %w", err)
		}
	}
	var all Pin
	for i, spec := range cfg.Sources {
		t, err := parseTarget(spec)
		if err != nil {
			return Pin{}, fmt.Errorf("discovery: %w", err)
		}
		s := &source{target: t, zone: dns.CanonicalName(cfg.Zone), anchors: anchors, trust: TrustDNSSEC}
		if s.ex, err = newExchanger(t, cfg.CA); err != nil {
			return Pin{}, fmt.Errorf("discovery: %w", err)
		}
		one, cancel := context.WithTimeout(ctx, cfg.Timeout.D())
		p, err := s.pin(one, now)
		cancel()
		s.ex.close()
		switch {
		case err != nil:
			return Pin{}, fmt.Errorf("asking %s for the keys of %s: %w", spec, s.zone, err)
		case i == 0:
			all = p
		case p.Keys() != all.Keys():
			return Pin{}, &BogusError{WrongKey, s.zone, "DNSKEY", fmt.Sprintf("%s and %s give different keys of %s: somebody on the way to one of them lies, or the zone is just changing its keys. The first gives\n%s\nand the other\n%s",
				all.Sources[0], spec, s.zone, all.Keys(), p.Keys())}
		}
		if p.Proved() {
			all.Chain, all.Why = p.Chain, nil
		}
		all.Sources = append(all.Sources, spec)
	}
	return all, nil
}

// pin asks one source.
func (s *source) pin(ctx context.Context, now time.Time) (Pin, error) {
	qs := []question{{s.zone, dns.TypeDNSKEY}}
	if s.recursive() {
		qs = chainQuestions(s.anchors.Zone, s.zone)
	}
	got := s.batch(ctx, qs)
	get := func(q question) (*dns.Msg, error) { return got[q].msg, got[q].err }
	p := Pin{Zone: s.zone, Why: errors.New("a name server of the zone itself cannot prove its keys")}
	c := &checker{now: now}
	var ks *keySet
	if s.recursive() {
		var err error
		ks, err = c.walk(s.anchors, s.zone, get)
		var insecure *InsecureError
		switch {
		case err == nil && ks.zone == s.zone:
			p.Chain, p.Why = ks.chain, nil
		case err == nil:
			return p, fmt.Errorf("%s is no zone of its own, but a name in %s", s.zone, zoneName(ks.zone))
		case errors.As(err, &insecure) || errors.Is(err, ErrNoZone):
			// No chain is there, as is proved: a private zone.
			ks, p.Why = nil, err
		default:
			return p, err
		}
	}
	msg, err := get(question{s.zone, dns.TypeDNSKEY})
	if err != nil {
		return p, err
	}
	sets := group(msg.Answer)
	if ks == nil {
		own := ownDS(sets, s.zone)
		if len(own) == 0 {
			return p, fmt.Errorf("%s gives no key of a kind that is accepted: the zone is not signed, and cannot be used", s.zone)
		}
		if ks, err = c.verifyKeys(sets, s.zone, own, "the zone itself"); err != nil {
			return p, err
		}
	}
	// All keys that may sign keys: also one that is only going to be used.
	sep := slices.DeleteFunc(slices.Clone(ks.keys), func(k *dns.DNSKEY) bool { return k.Flags&dns.SEP == 0 || k.Flags&dns.REVOKE != 0 })
	if len(sep) == 0 {
		sep = slices.DeleteFunc(slices.Clone(ks.keys), func(k *dns.DNSKEY) bool { return k.Flags&dns.REVOKE != 0 })
	}
	for _, k := range sep {
		p.DS = append(p.DS, k.ToDS(dns.SHA256))
	}
	slices.SortFunc(p.DS, func(a, b *dns.DS) int { return strings.Compare(a.Digest, b.Digest) })
	return p, nil
}

// ownDS are the DS records that the zone's own keys would have.
func ownDS(sets []*rrset, zone string) (ds []*dns.DS) {
	s := find(sets, zone, dns.TypeDNSKEY)
	if s == nil {
		return nil
	}
	for _, rr := range s.rrs[:min(len(s.rrs), maxKeys)] {
		if k := rr.(*dns.DNSKEY); k.Flags&dns.ZONE != 0 && supportedAlgorithm(k.Algorithm) && saneKey(k) {
			ds = append(ds, k.ToDS(dns.SHA256))
		}
	}
	return ds
}
