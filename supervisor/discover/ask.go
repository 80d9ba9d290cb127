package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// A Discoverer asks all sources of a configuration. It may be used by several
// goroutines at once.
type Discoverer struct {
	cfg     Config
	opt     Options
	sources []*source
	m       *metrics

	mu       sync.Mutex
	state    state
	saved    time.Time
	savedKey string
	kept     string          // what the newest evidence is of
	files    []string        // the newest evidence
	told     map[string]bool // events of each module's last answer
}

// New checks the configuration and reads the anchors and the state. It sends nothing.
func New(cfg Config, opt Options) (*Discoverer, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Discoverer{cfg: cfg, opt: opt}
	if err := d.check(); err != nil {
		return nil, err
	}
	zones := append([]Zone{{cfg.Zone, cfg.Sources, cfg.Anchor}}, cfg.Also...)
	if cfg.Updates != "" {
		zones = []Zone{{cfg.Updates, cfg.Sources, cfg.Anchor}}
	}
	if d.cfg.Fallback && cfg.Zone == "" && cfg.Updates == "" && len(cfg.Also) == 0 {
		zones = nil // no index at all: the module proxy alone
		d.cfg.Agree = 0
	}
	have := map[string]bool{}
	for _, z := range zones {
		if err := d.addZone(z, have); err != nil {
			d.Close()
			return nil, err
		}
	}
	ways := map[string]bool{}
	for _, s := range d.sources {
		ways[s.zone+" "+or(pathOf(s.addr), s.spec)] = true
	}
	if n := len(ways); d.cfg.Agree > n {
		d.Close()
		return nil, fmt.Errorf("discovery: agree is %d, but there are only %d sources on different paths; one server counts once, however it is asked", d.cfg.Agree, n)
	}
	var err error
	if d.state, err = loadState(opt.Dir); err != nil {
		opt.Logger.Error("discovery: state is unreadable", "err", err)
	}
	d.m = newMetrics(opt.Metrics, d.sources)
	return d, nil
}

func (d *Discoverer) check() error {
	c := &d.cfg
	if c.Trust == "" {
		c.Trust = TrustDNSSEC
	}
	if c.Trust != TrustDNSSEC && c.Trust != TrustResolver {
		return fmt.Errorf("discovery: trust is %q; it must be %q or %q", c.Trust, TrustDNSSEC, TrustResolver)
	}
	def := DefaultConfig()
	if c.Agree == 0 {
		c.Agree = 1
	}
	if c.Agree < 1 {
		return fmt.Errorf("discovery: agree is %d; at least one source must give a version", c.Agree)
	}
	if c.Timeout == 0 {
		c.Timeout = def.Timeout
	}
	if c.MaxAge == 0 {
		c.MaxAge = def.MaxAge
	}
	if c.MaxSilence == 0 {
		c.MaxSilence = def.MaxSilence
	}
	if len(c.Sources) == 0 {
		c.Sources = def.Sources
	}
	if c.Fallback && d.opt.Fallback == nil {
		return errors.New("discovery: fallback needs a module proxy and a checksum database")
	}
	return nil
}

// isZone reports whether a text is the name of a zone, and not an address for example.
func isZone(s string) bool {
	_, ok := dns.IsDomainName(s)
	return ok && s != "" && s != "." && !strings.ContainsAny(s, "/:@ ")
}

func (d *Discoverer) addZone(z Zone, have map[string]bool) error {
	if !isZone(z.Zone) {
		return fmt.Errorf("discovery: zone is %q; it must be the name of the zone that lists versions, like \"l.example.org.\"", z.Zone)
	}
	zone := dns.CanonicalName(z.Zone)
	anchors := BuiltinAnchors()
	if z.Anchor != "" {
		var err error
		if anchors, err = ReadAnchors(z.Anchor, d.opt.Now()); err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		if !dns.IsSubDomain(anchors.Zone, zone) {
			return fmt.Errorf("discovery: the anchor in %s is for %s, which is not at or above the zone %s", z.Anchor, anchors.Zone, zone)
		}
	}
	sources := z.Sources
	if len(sources) == 0 {
		sources = d.cfg.Sources
	}
	shared := cache{d.cfg.Cache}
	if d.cfg.Agree > 1 {
		shared = cache{} // whoever writes there could be several sources at once
	}
	for _, spec := range sources {
		t, err := parseTarget(spec)
		if err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		if t.scheme == "server" && anchors.Zone != zone && d.cfg.Updates == "" && d.cfg.Trust == TrustDNSSEC {
			return fmt.Errorf("discovery: source %q is a name server of %s itself, which cannot give the chain from %s: pin the zone's key with anchor, or ask a resolver", spec, zone, zoneName(anchors.Zone))
		}
		if d.cfg.Trust == TrustResolver && (t.scheme == "server" || t.encrypted() || t.scheme != "system" && !loopback(t.addr)) {
			return fmt.Errorf("discovery: source %q: trust = %q believes only a resolver on loopback, over udp:// or tcp://", spec, TrustResolver)
		}
		s := &source{target: t, zone: zone, updates: d.cfg.Updates != "", anchors: anchors, trust: d.cfg.Trust, cache: shared}
		if have[s.id()] {
			return fmt.Errorf("discovery: source %q is named twice for %s; it would count twice", spec, zone)
		}
		have[s.id()] = true
		if s.ex, err = newExchanger(t, d.cfg.CA); err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		d.sources = append(d.sources, s)
	}
	return nil
}

// Close ends idle connections.
func (d *Discoverer) Close() {
	for _, s := range d.sources {
		s.ex.close()
	}
}

// Ask asks every source for the module. The answer beside an error says what
// each source said and what happened.
func (d *Discoverer) Ask(ctx context.Context, module string) (Answer, error) {
	now := d.opt.Now()
	if len(d.sources) == 0 {
		return d.askProxy(ctx, module, now)
	}
	answers, evs := d.askAll(ctx, module, now)
	d.mu.Lock()
	marks, before := d.state.Marks, d.state.Modules[module]
	v := judge(now, d.rules(), module, answers, marks, before)
	d.mu.Unlock()
	if v.conflict != nil {
		// The index may have moved on between two packets: what is true at once is asked for again.
		again, evs2 := d.askAll(ctx, module, d.opt.Now())
		d.mu.Lock()
		v2 := judge(now, d.rules(), module, again, d.state.Marks, before)
		d.mu.Unlock()
		answers, evs, v = again, evs2, v2
	}
	a := Answer{Module: module, Versions: v.versions, Toolchain: v.toolchain, Status: v.status, Asked: now, Sources: answers, Events: v.events}
	err := v.err
	if liars := append(v.forked, v.conflict...); len(liars) > 0 && !d.opt.ReadOnly {
		files, kerr := d.evidence(now, liars, answers, evs)
		for k := range a.Events {
			if a.Events[k].Kind == EventConflict {
				a.Events[k].Files = files
			}
		}
		err = errors.Join(err, kerr)
	}
	d.describe(&a, v)
	if err != nil && v.conflict == nil && !errors.Is(err, ErrNotFound) && ctx.Err() == nil {
		err = d.fallback(ctx, &a, err)
	}
	if serr := d.remember(module, now, &a, v, err); serr != nil {
		// What was seen is not kept, so a replay would not be noticed after a restart.
		d.opt.Logger.Error("discovery: state is not kept", "err", serr)
		err = errors.Join(err, serr)
	}
	d.m.observe(a, err)
	d.tell(a)
	return a, err
}

// evidence keeps what contradicting sources said, once for as long as they say
// the same.
func (d *Discoverer) evidence(now time.Time, liars []int, answers []SourceAnswer, evs [][]evidence) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reports := make([]report, len(liars))
	what := ""
	for n, i := range liars {
		id := d.sources[i].id()
		reports[n] = newReport(now, id, d.state.Marks[id], evs[i])
		what += fmt.Sprintln(id, join(answers[i].Versions))
		if st := answers[i].Status; st != nil {
			what += fmt.Sprintln(st.Size, st.Hash)
		}
	}
	if what == d.kept {
		return d.files, nil
	}
	files, err := keepEvidence(d.opt.Dir, now, reports)
	if err == nil {
		d.kept, d.files = what, files
	}
	return files, err
}

// tell logs the events that were not there at the module's last answer.
func (d *Discoverer) tell(a Answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	told := map[string]bool{}
	for k := range d.told {
		if !strings.HasPrefix(k, a.Module+" ") {
			told[k] = true
		}
	}
	for _, e := range a.Events {
		level, k := slog.LevelWarn, a.Module+" "+e.Kind+" "+e.Source
		if d.told[k] {
			level = slog.LevelDebug
		}
		told[k] = true
		d.opt.Logger.Log(context.Background(), level, "discovery", "kind", e.Kind, "source", e.Source, "text", e.Text, "evidence", e.Files)
	}
	d.told = told
}

func (d *Discoverer) rules() rules {
	return rules{d.cfg.Agree, d.cfg.MaxAge.D(), d.cfg.MaxSilence.D()}
}

func (d *Discoverer) askAll(ctx context.Context, module string, now time.Time) ([]SourceAnswer, [][]evidence) {
	answers := make([]SourceAnswer, len(d.sources))
	evs := make([][]evidence, len(d.sources))
	var wg sync.WaitGroup
	for i, s := range d.sources {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout.D())
			defer cancel()
			answers[i], evs[i] = s.ask(ctx, module, now)
		})
	}
	wg.Wait()
	return answers, evs
}

// describe fills in where the versions come from.
func (d *Discoverer) describe(a *Answer, v verdict) {
	var names []string
	for n, i := range v.used {
		s := a.Sources[i]
		names = append(names, s.Source)
		if n == 0 {
			a.Proof, a.TTL = s.Proof, s.TTL
		}
		a.TTL = min(a.TTL, s.TTL)
	}
	a.Source = strings.Join(names, ", ")
	if len(names) > 1 {
		a.Proof += fmt.Sprintf("; %d sources agree", len(names))
	}
}

// askProxy is Ask without an index: what the module proxy lists is all there is.
func (d *Discoverer) askProxy(ctx context.Context, module string, now time.Time) (Answer, error) {
	a := Answer{Module: module, Asked: now, Fallback: true}
	var err error
	if a.Versions, err = d.opt.Fallback.Versions(ctx, module); err == nil {
		a.Source, a.Proof = "module proxy", d.opt.Fallback.Describe()
	}
	err = errors.Join(err, d.remember(module, now, &a, verdict{versions: a.Versions, err: err}, err))
	d.m.observe(a, err)
	return a, err
}

// fallback takes versions from elsewhere, and says so.
func (d *Discoverer) fallback(ctx context.Context, a *Answer, err error) error {
	if !d.cfg.Fallback {
		return err
	}
	versions, ferr := d.opt.Fallback.Versions(ctx, a.Module)
	if ferr != nil {
		return errors.Join(err, fmt.Errorf("falling back to the module proxy: %w", ferr))
	}
	what := d.opt.Fallback.Describe()
	a.Versions, a.Fallback, a.Source, a.Proof, a.TTL = versions, true, "module proxy", what, 0
	a.Events = append(a.Events, Event{Kind: EventFallback, At: a.Asked,
		Text: fmt.Sprintf("the versions of %s come from the module proxy, %s, since the DNS gave none: %v", a.Module, what, err)})
	return nil
}

// remember keeps what was seen, and fills in how fresh the knowledge is.
func (d *Discoverer) remember(module string, now time.Time, a *Answer, v verdict, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, m := range v.marks {
		old := d.state.Marks[id]
		if m.At.Before(old.At) {
			m.At = old.At
		}
		d.state.Marks[id] = m
	}
	s, known := d.state.Modules[module]
	if !known {
		s.Since = now
	}
	if v.err == nil || errors.Is(v.err, ErrNotFound) {
		s.Last, s.Stale, s.Since = now, time.Time{}, now
		if v.err == nil {
			s.Versions = v.versions
		}
	} else if s.Stale.IsZero() {
		s.Stale = now
	}
	records := map[string]record{}
	for i, src := range a.Sources {
		id := d.sources[i].id()
		old := s.Records[id]
		// A record from before a change stays known as such until a later signature.
		if src.Err == nil && src.Stale == "" && !src.signed.Before(old.Signed) {
			old = record{join(src.Versions), src.signed}
		}
		if old != (record{}) {
			records[id] = old
		}
	}
	s.Records = records
	d.state.Modules[module] = s
	a.Fresh = Freshness{Last: s.Last, StaleSince: s.Stale}
	if !s.Stale.IsZero() && now.Sub(s.Since) > d.cfg.MaxSilence.D() {
		a.Fresh.Silent = true
		a.Events = append(a.Events, Event{Kind: EventSilence, At: now,
			Text: fmt.Sprintf("no fresh verified answer for %s since %s, longer than max_silence (%s): answers may be dropped on the way", module, stamp(s.Since), d.cfg.MaxSilence)})
	}
	if d.opt.ReadOnly {
		return nil
	}
	// Polls that find nothing new do not write each time.
	key := d.state.essence()
	if key == d.savedKey && now.Sub(d.saved) < saveEvery {
		return nil
	}
	if err := d.state.save(d.opt.Dir); err != nil {
		return err
	}
	d.saved, d.savedKey = now, key
	return nil
}
