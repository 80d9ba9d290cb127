package discover

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"maps"
	"slices"
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
	zone    string // or, with updates, a program's own domain
	updates bool
	anchors Anchors
	trust   string
	ex      exchanger
	cache   cache

	mu   sync.Mutex
	keys *keySet // of the zone, while they hold
}

func (s *source) id() string { return s.zone + " " + s.spec }

// evidence is an answer as received, kept when it contradicts another.
type evidence struct {
	question question
	wire     []byte
}

// questions returns what is asked of the zone for a module: its own record,
// then those of the toolchain and of the index, unless a program's own domain
// is asked.
func (s *source) questions(mod string) ([]question, error) {
	if s.updates {
		return []question{{name.Updates(s.zone), dns.TypeTXT}}, nil
	}
	qname, err := name.Module(mod, s.zone)
	if err != nil {
		return nil, fmt.Errorf("asking for module %s: %w", mod, err)
	}
	return []question{{qname, dns.TypeTXT}, {name.Toolchain(s.zone), dns.TypeTXT}, {name.Status(s.zone), dns.TypeTXT}}, nil
}

// top is the name down to which the chain of keys goes.
func (s *source) top() string {
	if s.updates {
		return name.Updates(s.zone)
	}
	return s.zone
}

// ask asks for a module, the toolchain and the state of the index at once; when
// the zone's keys are not at hand for those too.
func (s *source) ask(ctx context.Context, mod string, now time.Time) (SourceAnswer, []evidence) {
	texts, err := s.questions(mod)
	if err != nil {
		return SourceAnswer{Source: s.spec, Zone: s.zone, Err: err}, nil
	}
	start := time.Now()
	exchanges := 0
	for attempt := 0; ; attempt++ {
		t := &attemptState{source: s, now: now, fresh: attempt > 0}
		t.a = SourceAnswer{Source: s.spec, Zone: s.zone}
		t.a.Err = t.run(ctx, mod, texts)
		exchanges += t.a.Exchanges
		var bogus *BogusError
		if errors.As(t.a.Err, &bogus) {
			s.forget()
			// A zone that changed its keys looks bogus to what was kept from before.
			if t.kept && attempt == 0 {
				continue
			}
		}
		t.a.Exchanges, t.a.RTT = exchanges, time.Since(start)
		return t.a, t.ev
	}
}

func (s *source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = nil
}

// attemptState is one attempt to get a validated answer.
type attemptState struct {
	*source
	now   time.Time
	fresh bool // nothing kept may be used
	kept  bool // something kept was used
	a     SourceAnswer
	ev    []evidence
	got   map[question]result
}

func (t *attemptState) run(ctx context.Context, mod string, texts []question) error {
	ks := t.warm()
	var chain []question
	if ks == nil && t.trust == TrustDNSSEC {
		chain = chainQuestions(t.anchors.Zone, t.top())
	}
	t.fetch(ctx, mod, chain, texts)
	if r := t.got[texts[0]]; r.msg != nil {
		t.a.Server, t.a.Transport = r.server, r.via
	}
	c := &checker{now: t.now}
	if ks == nil && t.trust == TrustDNSSEC {
		var err error
		ks, err = c.walk(t.anchors, t.top(), t.get)
		if t.updates && errors.Is(err, ErrNoZone) {
			return &NotFoundError{mod, texts[0].name, t.spec, err.Error()}
		}
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.keys = ks
		t.mu.Unlock()
	}
	found, nxdomain, err := t.read(c, ks, mod, texts)
	if err != nil {
		return err
	}
	if t.trust == TrustResolver {
		t.a.Proof = fmt.Sprintf("the resolver at %s says that it validated it (AD bit)", t.a.Server)
	} else {
		t.a.Chain, t.a.Proof = ks.chain, proof(ks.chain)
		t.keep(mod, chain, texts)
	}
	if !found && nxdomain {
		return &NotFoundError{mod, texts[0].name, t.spec, "a denial, " + t.a.Proof}
	}
	return nil
}

// warm returns the zone's keys when they are at hand and still hold.
func (t *attemptState) warm() *keySet {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fresh || t.keys == nil || !t.now.Before(t.keys.until) {
		return nil
	}
	t.kept = true
	return t.keys
}

// fetch gets the answers from the shared folder, and the others from the
// source, all at once.
func (t *attemptState) fetch(ctx context.Context, mod string, chain, texts []question) {
	t.got = map[question]result{}
	if !t.fresh && t.trust == TrustDNSSEC {
		kept := map[question]result{}
		maps.Copy(kept, t.cache.load(t.now, t.id()))
		maps.Copy(kept, t.cache.load(t.now, t.id(), mod))
		for _, q := range slices.Concat(chain, texts) {
			if r, ok := kept[q]; ok {
				t.got[q], t.kept = r, true
			}
		}
	}
	var ask []question
	for _, q := range slices.Concat(chain, texts) {
		if _, ok := t.got[q]; !ok {
			ask = append(ask, q)
		}
	}
	for q, r := range t.batch(ctx, ask) {
		t.got[q] = r
		t.a.Exchanges += r.sent
	}
}

// keep puts what was validated into the shared folder.
func (t *attemptState) keep(mod string, chain, texts []question) {
	part := func(qs []question) (map[question]result, bool) {
		out, sent := map[question]result{}, false
		for _, q := range qs {
			out[q] = t.got[q]
			sent = sent || t.got[q].sent > 0
		}
		return out, sent
	}
	// What was kept before has had its TTLs lowered by its age.
	if m, sent := part(chain); sent {
		t.cache.store(t.now, m, t.id())
	}
	if m, sent := part(texts); sent {
		t.cache.store(t.now, m, t.id(), mod)
	}
}

func (t *attemptState) get(q question) (*dns.Msg, error) {
	r := t.got[q]
	if r.err != nil {
		return nil, r.err
	}
	return r.msg, nil
}

// read validates the texts and fills in the answer.
func (t *attemptState) read(c *checker, ks *keySet, mod string, texts []question) (found, nxdomain bool, err error) {
	until := t.now.Add(maxTTL)
	t.a.uncached = true
	for i, q := range texts {
		txt, err := t.one(c, ks, q)
		if err == nil && txt.found {
			switch {
			case i == 0 && t.updates:
				t.a.Versions, err = ownVersion(mod, txt.txt)
			case i == 0:
				t.a.Versions, err = versions(mod, txt.txt)
			case i == 1:
				t.a.Toolchain, err = toolchains(txt.txt)
			case i == 2:
				t.a.Status, err = status(txt.txt)
			}
		}
		if err != nil {
			return false, false, err
		}
		if txt.found && txt.ttl < txt.origTTL || !txt.found && t.recursive() {
			t.a.uncached = false
		}
		until = earlier(until, txt.until)
		if i == 0 {
			found, nxdomain, t.a.signed = txt.found, txt.nxdomain, txt.signed
		}
	}
	t.a.TTL = max(until.Sub(t.now), 0)
	return found, nxdomain, nil
}

func (t *attemptState) one(c *checker, ks *keySet, q question) (txt text, err error) {
	msg, err := t.get(q)
	if err != nil {
		return text{}, err
	}
	if t.trust == TrustResolver {
		if server := t.got[q].server; !loopback(server) {
			return text{}, fmt.Errorf("trust = \"resolver\" believes only a resolver on loopback, not %s", server)
		}
		txt, err = believe(msg, q.name, t.now)
	} else {
		txt, err = c.txt(msg, q.name, ks)
	}
	if err == nil {
		if wire, err := msg.Pack(); err == nil {
			t.ev = append(t.ev, evidence{q, wire})
		}
	}
	return txt, err
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

// ownVersion reads the record that a program's own domain has.
func ownVersion(mod, txt string) ([]name.Entry, error) {
	v, err := name.ParseUpdates(txt)
	if err != nil {
		return nil, &malformedError{fmt.Sprintf("the record is not of the format: %v", err)}
	}
	return checkVersions(mod, []name.Entry{{Version: v}})
}

// versions reads the record of a module.
func versions(mod, txt string) ([]name.Entry, error) {
	entries, err := name.ParseTXT(txt)
	if err != nil {
		return nil, &malformedError{fmt.Sprintf("the record of %s is not of the format: %v", mod, err)}
	}
	return checkVersions(mod, entries)
}

// checkVersions refuses a record that lists what it cannot.
func checkVersions(mod string, entries []name.Entry) ([]name.Entry, error) {
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
