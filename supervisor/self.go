package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/schedule"
)

// selfOff returns why upkeep doesn't update itself, "" when it can.
func (e *Engine) selfOff() string {
	s := e.deps.Self
	switch {
	case s.Off != "":
		return s.Off
	case e.deps.Successor == nil:
		return "this upkeep was not made for updates of itself"
	case !handoff.Supported:
		return "on this system a program can't be replaced by another while its children run on"
	case s.Module == "" || s.Path == "":
		return "it is not known by which name upkeep was started; set self.path"
	case !semver.IsValid(s.Version) || module.IsPseudoVersion(s.Version) || semver.Build(s.Version) != "":
		return fmt.Sprintf("upkeep %s was not built from a released version", orText(s.Version, "of an unknown version"))
	}
	return install.At(s.Path).Writable()
}

func (e *Engine) selfPlace() install.Place { return install.At(e.deps.Self.Path) }

// selfRunning returns the running version of upkeep.
func (e *Engine) selfRunning() Pair { return Pair{e.deps.Self.Version, e.deps.Self.GoVersion} }

// selfSpec is the build of a version of upkeep for this machine.
func (e *Engine) selfSpec(p Pair) spec.Spec {
	s := e.deps.Self
	return spec.Spec{Module: s.Module, Dir: s.Package, Version: p.Version, GoVersion: p.GoVersion, GOOS: runtime.GOOS, GOARCH: runtime.GOARCH,
		Stripped: e.conf().Self.Stripped}
}

func (e *Engine) selfFile(p Pair) string { return fileFor(e.selfPlace(), p, e.conf().Self.Stripped) }

// selfBusy reports whether upkeep is updating itself.
func (e *Engine) selfBusy() bool {
	u := e.doc.Self.Update
	return u != nil && u.State != StateScheduled && u.State != StateIdle
}

// busy reports whether the service is being updated.
func (e *Engine) busy() bool {
	u := e.doc.Update
	return u != nil && u.State != StateScheduled && u.State != StateIdle
}

// selfInput is what is known, for a decision about upkeep itself.
func (e *Engine) selfInput() policy.Input {
	cfg, d := e.conf().Self, &e.doc.Self
	in := policy.Input{Now: e.now(), Running: e.selfRunning().policy(), Level: cfg.Policy, Toolchain: cfg.Toolchain,
		Delay: cfg.Delay.D(), RestartDelay: e.conf().Updates.RestartDelay}
	for _, s := range d.Skips {
		in.Skips = append(in.Skips, policy.Skip{Version: s.Version, GoVersion: s.GoVersion, Why: s.Why})
	}
	in.Refused = refused(d.Failures, in.Now)
	k := d.Known
	if k == nil {
		return in
	}
	if d.FirstSeen == nil {
		d.FirstSeen = map[string]time.Time{}
	}
	for _, r := range append(slices.Clone(k.Releases), e.selfListed...) {
		if slices.ContainsFunc(in.Releases, func(have policy.Release) bool { return have.Path == r.Path && have.Version == r.Version }) {
			continue
		}
		r.Discovered = e.seen(d.FirstSeen, r.Path+"@"+r.Version, r.Discovered)
		in.Releases = append(in.Releases, r)
	}
	for _, g := range k.GoReleases {
		g.Discovered = e.seen(d.FirstSeen, g.Version, g.Discovered)
		in.GoReleases = append(in.GoReleases, g)
	}
	return in
}

// replanSelf decides anew which version of upkeep is installed when. The
// service comes first: while it is being updated, or doesn't run, upkeep stays
// as it is.
func (e *Engine) replanSelf() {
	if e.selfTimer != nil {
		e.selfTimer.Stop()
		e.selfTimer = nil
	}
	if e.selfOff() != "" || e.trial {
		return
	}
	in := e.selfInput()
	e.selfDecision = policy.Decide(in)
	u := e.doc.Self.Update
	if e.stopping || e.selfBusy() {
		return
	}
	c := e.selfDecision.Candidate
	e.metrics.selfAvailable.Set(number(c != nil))
	if c == nil || e.selfAutomatic(c) != "" {
		e.doc.Self.Update = nil
		return
	}
	to := pairOf(c.Pair)
	if u == nil || u.To != to || u.From != e.selfRunning() {
		u = e.newSelfUpdate(kindSelfUpdate, c.Kind, to, "policy", false)
		u.Started, u.State = in.Now, StateScheduled
		e.doc.Self.Update, e.dirty = u, true
	}
	w := e.selfWhen(c, u, in.Now)
	u.When = w.At
	switch {
	case w.At.IsZero():
	case w.At.After(in.Now):
		e.selfTimer = time.AfterFunc(min(w.At.Sub(in.Now), replanMax), func() { e.post(e.replanSelf) })
	case e.busy() || e.proc == nil:
		// Their end comes here again.
	default:
		e.launchSelf(u)
	}
}

// selfAutomatic returns why a version of upkeep doesn't go by itself.
func (e *Engine) selfAutomatic(c *policy.Candidate) string {
	switch {
	case c.Manual:
		return e.selfDecision.Reason
	case e.doc.Paused:
		return "updates are paused"
	case e.deps.UpdatesErr != nil:
		return "updates are off: " + e.deps.UpdatesErr.Error()
	case e.deps.Self.ConfigErr != "":
		return "the configuration on disk is wrong: a new version would start with it"
	case e.stateErr != nil:
		return "updates are off: " + e.stateErr.Error()
	}
	return ""
}

func (e *Engine) selfWhen(c *policy.Candidate, u *update, now time.Time) schedule.When {
	in := schedule.Input{Now: now, NotBefore: c.NotBefore, Windows: e.windows, Jitter: e.conf().Updates.Jitter.D(),
		Seed: e.doc.Seed + "self" + c.Version + c.GoVersion}
	if f, ok := e.doc.Self.Failures[pairOf(c.Pair).String()]; ok {
		in.Retry = e.retryAt(f, now)
	}
	if u != nil {
		in.Spread = u.Started
	}
	return schedule.At(in)
}

// askSelfUpdate installs a version of upkeep now.
func (e *Engine) askSelfUpdate(a Action) error {
	p, kind, err := policy.Resolve(e.selfInput(), a.Version, a.GoVersion)
	if err != nil {
		return refuse("%v", err)
	}
	s := e.selfSpec(pairOf(p))
	if err := s.Check(); err != nil {
		return refuse("%v", err)
	}
	delete(e.doc.Self.Failures, pairOf(p).String())
	e.launchSelf(e.newSelfUpdate(kindSelfUpdate, kind, pairOf(p), a.By, true))
	if e.doc.Self.Update == nil {
		return refuse("the update of upkeep could not be started: %v", e.stateErr)
	}
	return nil
}

// askSelfRollback goes back to a kept version of upkeep.
func (e *Engine) askSelfRollback(a Action) error {
	to := e.doc.Self.Installed.previous(e.doc.Self.Skips, e.selfRunning(), a)
	if to == nil {
		return refuse("there is no earlier binary of upkeep to go back to")
	}
	u := e.newSelfUpdate(kindSelfRollback, policy.KindOlder, to.Pair, a.By, true)
	u.ToFile = to.File
	e.launchSelf(u)
	return nil
}

// actSelf does what a person asks for upkeep itself.
func (e *Engine) actSelf(a Action) error {
	if off := e.selfOff(); off != "" {
		return refuse("upkeep does not update itself: %s", off)
	}
	switch a.Verb {
	case VerbUpdate, VerbRollback:
		switch {
		case e.selfBusy():
			return refuse("upkeep is updating itself to %s", e.doc.Self.Update.To)
		case e.busy():
			return refuse("an update to %s is under way", e.doc.Update.To)
		case e.deps.UpdatesErr != nil:
			return refuse("updates are off: %v", e.deps.UpdatesErr)
		case e.proc == nil:
			return refuse("the service does not run; it has to run before upkeep is updated")
		case a.Verb == VerbRollback:
			return e.askSelfRollback(a)
		}
		return e.askSelfUpdate(a)
	case VerbCancel:
		u := e.doc.Self.Update
		switch {
		case e.selfBusy():
		case u != nil && u.State == StateScheduled:
			return e.unscheduleSelf(u, a)
		default:
			return refuse("upkeep is not updating itself, and is not going to")
		}
		if _, err := nextIn(selfTransitions, u.State, evCancel); err != nil {
			return refuse("the update of upkeep to %s is past the point where it can be cancelled (%s)", u.To, u.State)
		}
		e.rememberCancel(u, e.doc.Self.Failures, a.By)
		e.selfEvent(evCancel, "cancelled by "+a.By)
		return nil
	case VerbSkip, VerbUnskip:
		return e.skipSelf(a)
	}
	return refuse("there is no action %q for upkeep itself", a.Verb)
}

// unscheduleSelf has an update of upkeep that waits for its time wait longer, as
// one that was cancelled on its way.
func (e *Engine) unscheduleSelf(u *update, a Action) error {
	key := u.To.String()
	old, had := e.doc.Self.Failures[key]
	e.rememberCancel(u, e.doc.Self.Failures, a.By)
	if err := e.save(); err != nil {
		if delete(e.doc.Self.Failures, key); had {
			e.doc.Self.Failures[key] = old
		}
		return refuse("the decision can't be kept: %v", err)
	}
	e.recordSelf(a, u.To)
	e.replanSelf()
	e.changed()
	return nil
}

// recordSelf writes a decision about upkeep itself to the history.
func (e *Engine) recordSelf(a Action, to Pair) {
	e.record(Result{ID: e.now().UTC().Format("20060102T150405.000"), Kind: "self_" + a.Verb, Result: "done", Reason: a.Reason, By: a.By,
		From: e.selfRunning(), To: to, Started: e.now(), Ended: e.now()})
}

func (e *Engine) skipSelf(a Action) error {
	old := slices.Clone(e.doc.Self.Skips)
	if a.Version == "" && e.selfDecision.Candidate != nil {
		a.Version = e.selfDecision.Candidate.Version
	}
	p := Pair{a.Version, a.GoVersion}
	if !semver.IsValid(p.Version) {
		return refuse("%q is no version", p.Version)
	}
	if a.Verb == VerbSkip {
		switch {
		case p.Version == e.deps.Self.Version && p.GoVersion == "":
			return refuse("%s runs; a running version can't be skipped", p.Version)
		case skips(old, p):
			return refuse("%s is skipped already", p.Version)
		case len(old) >= maxSkips:
			return refuse("%d versions are skipped; unskip some", maxSkips)
		}
		e.doc.Self.Skips = append(e.doc.Self.Skips, Skip{Pair: p, By: a.By, Why: orText(a.Reason, "by "+a.By), Time: e.now()})
	} else {
		e.doc.Self.Skips = slices.DeleteFunc(e.doc.Self.Skips, func(s Skip) bool {
			return s.Version == p.Version && (p.GoVersion == "" || s.GoVersion == p.GoVersion)
		})
		if len(e.doc.Self.Skips) == len(old) {
			return refuse("%s is not skipped", p.Version)
		}
	}
	if err := e.save(); err != nil {
		e.doc.Self.Skips = old
		return refuse("the decision can't be kept: %v", err)
	}
	e.recordSelf(a, p)
	e.replanSelf()
	e.changed()
	return nil
}

// learnedSelf takes what discovery found of upkeep's own module. What is
// wrong with that is upkeep's business and not the service's, except a lie.
func (e *Engine) learnedSelf(k Known, listed []policy.Release, err error) {
	e.selfErr = ""
	if err != nil {
		e.selfErr = err.Error()
		var verify *VerificationError
		if errors.As(err, &verify) {
			e.addEvent(Event{Kind: verify.Kind, Security: true, Text: "upkeep's own versions: " + err.Error()})
		}
		if k.Source == "" {
			return
		}
	}
	if listed != nil {
		e.selfListed = listed
	}
	d := &e.doc.Self
	before := maps.Clone(d.FirstSeen)
	d.Known = &known{Module: e.deps.Self.Module, Releases: k.Releases, GoReleases: k.GoReleases, Source: k.Source, Proof: k.Proof, LogSize: k.LogSize, At: e.now()}
	e.replanSelf()
	forget(d.FirstSeen, d.Failures, e.selfInput())
	if len(d.FirstSeen) != len(before) {
		_ = e.save() // save reports
	}
	e.changed()
}

// selfStatus is upkeep's part of the status.
func (e *Engine) selfStatus(now time.Time) SelfStatus {
	s := e.deps.Self
	if e.stateErr != nil {
		s.StateErr = e.stateErr.Error()
	}
	if e.deps.UpdatesErr != nil && s.ConfigErr == "" { // what the last reading found comes first
		s.ConfigErr = e.deps.UpdatesErr.Error()
	}
	d := &e.doc.Self
	s.Off, s.Since, s.LastResult, s.Skips = e.selfOff(), d.Since, d.Last, slices.Clone(d.Skips)
	if s.Since.IsZero() {
		s.Since = s.Started
	}
	if s.Off != "" {
		return s
	}
	s.Error = e.selfErr
	for _, b := range d.Installed {
		s.Kept = append(s.Kept, Kept{Pair: b.Pair, Sum: b.Sum, File: b.File, Size: b.Size, Since: b.Since, Running: b.Pair == e.selfRunning()})
	}
	plan := Plan{Reason: e.selfDecision.Reason}
	if c := e.selfDecision.Candidate; c != nil {
		plan.Candidate = &Candidate{Pair: pairOf(c.Pair), Kind: c.Kind, Why: c.Why, Manual: c.Manual}
		if against := e.selfAutomatic(c); against == "" {
			w := e.selfWhen(c, d.Update, now)
			plan.Automatic, plan.Candidate.When, plan.Candidate.Wait = true, w.At, waitWords(c, w)
		} else {
			plan.Candidate.Wait, plan.Reason = against, against
		}
		if f, ok := d.Failures[plan.Candidate.Pair.String()]; ok {
			plan.Candidate.Wait = f.words()
		}
	}
	plan.Versions = verdicts(e.selfDecision, func(p Pair) bool {
		return slices.ContainsFunc(d.Installed, func(b installed) bool { return b.Pair == p })
	})
	s.Plan = &plan
	if e.selfBusy() {
		s.Update = e.progressOf(d.Update, now, selfSteps, selfOrder)
	}
	return s
}
