package discover

import (
	"context"
	"fmt"
	"go/version"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/httpget"
)

func line(s string) string { return httpget.Line(s, 200) }

// A source is one way to ask for one zone.
type source struct {
	target
	zone    string
	anchors Anchors
	trust   string
	ex      exchanger

	mu   sync.Mutex
	keys *keySet // of the zone, while they hold
}

func (s *source) id() string { return s.zone + " " + s.spec }

// evidence is an answer as received, kept when it contradicts another.
type evidence struct {
	question question
	wire     []byte
}

// ask asks for a module, the toolchain and the state of the index at once; when
// the zone's keys are not at hand for those too.
func (s *source) ask(ctx context.Context, mod string, now time.Time) (SourceAnswer, []evidence) {
	a := SourceAnswer{Source: s.spec, Zone: s.zone}
	qname, err := name.Module(mod, s.zone)
	if err != nil {
		a.Err = fmt.Errorf("asking for module %s: %w", mod, err)
		return a, nil
	}
	start := time.Now()
	var ev []evidence
	for attempt := 0; ; attempt++ {
		var warm bool
		warm, ev = s.try(ctx, mod, qname, now, &a)
		// A zone that changed its keys looks bogus to keys kept from before.
		if _, bogus := a.Err.(*BogusError); !bogus || !warm || attempt > 0 {
			break
		}
		a = SourceAnswer{Source: s.spec, Zone: s.zone, Exchanges: a.Exchanges}
	}
	a.RTT = time.Since(start)
	return a, ev
}

func (s *source) try(ctx context.Context, mod, qname string, now time.Time, a *SourceAnswer) (warm bool, ev []evidence) {
	s.mu.Lock()
	ks := s.keys
	s.mu.Unlock()
	if ks != nil && !now.Before(ks.until) {
		ks = nil
	}
	warm = ks != nil
	texts := []question{{qname, dns.TypeTXT}, {name.Toolchain(s.zone), dns.TypeTXT}, {name.Status(s.zone), dns.TypeTXT}}
	qs := texts
	if !warm && s.trust == TrustDNSSEC {
		qs = append(chainQuestions(s.anchors.Zone, s.zone), texts...)
	}
	got := s.batch(ctx, qs)
	get := func(q question) (*dns.Msg, error) {
		r := got[q]
		if r.err != nil {
			return nil, r.err
		}
		return r.msg, nil
	}
	for _, q := range qs {
		r := got[q]
		a.Exchanges += r.sent
		if r.msg != nil && q == texts[0] {
			a.Server, a.Transport = r.server, r.via
		}
	}
	c := &checker{now: now}
	if ks == nil && s.trust == TrustDNSSEC {
		// Without an answer for the module the chain is of no use, and the
		// name server's silence tells more than a missing key.
		var err error
		if ks, err = c.walk(s.anchors, s.zone, get); err != nil {
			a.Err = err
			return warm, nil
		}
		s.mu.Lock()
		s.keys = ks
		s.mu.Unlock()
	}
	read := func(q question) (text, error) {
		msg, err := get(q)
		if err != nil {
			return text{}, err
		}
		var t text
		if s.trust == TrustResolver {
			if !loopback(got[q].server) {
				return text{}, fmt.Errorf("trust = \"resolver\" believes only a resolver on loopback, not %s", got[q].server)
			}
			t, err = believe(msg, q.name, now)
		} else {
			t, err = c.txt(msg, q.name, ks)
		}
		if err == nil {
			if wire, err := msg.Pack(); err == nil {
				ev = append(ev, evidence{q, wire})
			}
		}
		return t, err
	}
	defer func() {
		if _, bogus := a.Err.(*BogusError); bogus {
			s.mu.Lock()
			s.keys = nil
			s.mu.Unlock()
		}
	}()
	until := now.Add(maxTTL)
	a.uncached = true
	var main text
	for i, q := range texts {
		t, err := read(q)
		if err == nil && t.found {
			switch i {
			case 0:
				a.Versions, err = versions(mod, t.txt)
			case 1:
				a.Toolchain, err = toolchains(t.txt)
			case 2:
				a.Status, err = status(t.txt)
			}
		}
		if err != nil {
			a.Err = err
			return warm, ev
		}
		if t.found && t.ttl < t.origTTL || !t.found && s.recursive() {
			a.uncached = false
		}
		until = earlier(until, t.until)
		if i == 0 {
			main = t
		}
	}
	a.TTL = max(until.Sub(now), 0)
	if s.trust == TrustResolver {
		a.Proof = fmt.Sprintf("the resolver at %s says that it validated it (AD bit)", a.Server)
	} else {
		a.Chain = ks.chain
		a.Proof = proof(ks.chain)
	}
	if !main.found && main.nxdomain {
		a.Err = &NotFoundError{mod, qname, s.spec, "a denial, " + a.Proof}
	}
	return warm, ev
}

type result struct {
	reply
	err error
}

func (s *source) batch(ctx context.Context, qs []question) map[question]result {
	out := make(map[question]result, len(qs))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, q := range qs {
		wg.Go(func() {
			r, err := ask(ctx, s.ex, s.target, q.name, q.typ, s.trust)
			mu.Lock()
			defer mu.Unlock()
			out[q] = result{r, err}
		})
	}
	wg.Wait()
	return out
}

// proof says in a phrase which keys an answer was validated with.
func proof(chain []Link) string {
	var parts []string
	for _, l := range chain {
		z := strings.TrimSuffix(l.Zone, ".")
		if z == "" {
			z = "root"
		}
		parts = append(parts, fmt.Sprintf("%s (key %d)", z, l.KeyTag))
	}
	return fmt.Sprintf("validated with DNSSEC from %s: %s", chain[0].By, strings.Join(parts, " → "))
}

// versions reads the record of a module.
func versions(mod, txt string) ([]name.Entry, error) {
	entries, err := name.ParseTXT(txt)
	if err != nil {
		return nil, &malformedError{fmt.Sprintf("the record of %s is not of the format: %v", mod, err)}
	}
	for _, e := range entries {
		// The format lists releases only: what a module path cannot have, and
		// what the format excludes, is never handed on.
		if err := module.Check(mod, e.Version); err != nil || semver.Prerelease(e.Version) != "" || module.CanonicalVersion(e.Version) != e.Version {
			return nil, &malformedError{fmt.Sprintf("the record of %s lists %s, which is not a release of this module", mod, line(e.Version))}
		}
	}
	return entries, nil
}

func toolchains(txt string) ([]name.Entry, error) {
	entries, err := name.ParseTXT(txt)
	if err != nil {
		return nil, &malformedError{fmt.Sprintf("the toolchain record is not of the format: %v", err)}
	}
	for _, e := range entries {
		if len(e.Version) > 32 || !version.IsValid(e.Version) {
			return nil, &malformedError{fmt.Sprintf("the toolchain record lists %s, which is not a Go version", line(e.Version))}
		}
	}
	return entries, nil
}

func status(txt string) (*name.StatusText, error) {
	st, err := name.ParseStatus(txt)
	if err != nil {
		return nil, &malformedError{fmt.Sprintf("the status record is not of the format: %v", err)}
	}
	return &st, nil
}
