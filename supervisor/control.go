package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"example.org/upkeep/supervisor/policy"
)

var _ Controller = (*Engine)(nil)

// Do does what a person asks for, or starts it.
func (e *Engine) Do(ctx context.Context, a Action) error {
	if a.Verb == VerbReload {
		return e.Reload(ctx)
	}
	var refused error
	err := e.do(ctx, func() { refused = e.act(a) })
	if err != nil {
		return err
	}
	return refused
}

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// maxActionText bounds what a request can put into state and history.
const maxActionText = 200

func (e *Engine) act(a Action) error {
	for _, s := range []string{a.Version, a.GoVersion, a.By, a.Reason} {
		if len(s) > maxActionText {
			return refuse("a text of %d bytes is too long; at most %d", len(s), maxActionText)
		}
		if strings.ContainsFunc(s, unicode.IsControl) {
			return refuse("%q has control characters, which a terminal that shows the history would obey", s)
		}
	}
	if a.By == "" {
		a.By = "somebody"
	}
	u, busy := e.doc.Update, e.busy()
	switch {
	case e.stopping:
		return refuse("upkeep is stopping")
	case e.trial:
		return refuse("this is an upkeep on trial")
	case a.Self:
		return e.actSelf(a)
	}
	switch a.Verb {
	case VerbCheck:
		select {
		case e.kick <- struct{}{}:
		default: // asked for already
		}
		return nil
	case VerbUpdate, VerbRollback:
		if busy {
			return refuse("an update to %s is under way", u.To)
		}
		if e.selfBusy() {
			return refuse("upkeep is updating itself to %s; try again when that is over", e.doc.Self.Update.To)
		}
		if e.infoErr != nil {
			return refuse("%v", e.infoErr)
		}
		if e.deps.UpdatesErr != nil {
			return refuse("updates are off: %v", e.deps.UpdatesErr)
		}
		if a.Verb == VerbRollback {
			return e.askRollback(a)
		}
		return e.askUpdate(a)
	case VerbSchedule:
		return e.appoint(a)
	case VerbCancel:
		if !busy && e.doc.Appointment != nil {
			return e.disappoint(a)
		}
		if !busy {
			return refuse("no update is under way")
		}
		if u.State != StateFetching && u.State != StateVerified {
			return refuse("the update to %s is past the point where it can be cancelled (%s)", u.To, u.State)
		}
		if !u.Asked {
			e.rememberCancel(u, e.doc.Failures, a.By)
		}
		e.event(evCancel, "cancelled by "+a.By)
		return nil
	}
	return e.decide(a)
}

func (e *Engine) askUpdate(a Action) error {
	in := e.policyInput()
	p, kind, err := policy.Resolve(in, a.Version, a.GoVersion)
	if err != nil {
		return refuse("%v", err)
	}
	s := e.specFor(pairOf(p))
	if err := s.Check(); err != nil {
		return refuse("%v", err)
	}
	// Whoever asks has seen why it failed before.
	delete(e.doc.Failures, pairOf(p).String())
	e.launch(e.newUpdate(kindUpdate, kind, pairOf(p), a.By, true))
	if e.doc.Update == nil {
		return refuse("the update could not be started: %v", e.stateErr)
	}
	return nil
}

func (e *Engine) askRollback(a Action) error {
	to := e.doc.Installed.previous(e.doc.Skips, e.running(), a)
	if to == nil {
		if a.Version == "" {
			return refuse("there is no earlier binary to go back to")
		}
		return refuse("there is no binary of %s here; try an update to it", a.Version)
	}
	u := e.newUpdate(kindRollback, policy.KindOlder, to.Pair, a.By, true)
	u.ToFile = to.File
	e.launch(u)
	if e.doc.Update == nil {
		return refuse("the roll-back could not be started: %v", e.stateErr)
	}
	return nil
}

// decide handles the actions that change what the policy goes by. They are
// refused when they can't be kept.
func (e *Engine) decide(a Action) error {
	old := e.doc
	old.Skips = slices.Clone(e.doc.Skips)
	why := a.Reason
	switch a.Verb {
	case VerbHold:
		e.doc.Hold, e.doc.HoldBy = true, a.By
	case VerbUnhold:
		e.doc.Hold, e.doc.HoldBy = false, ""
	case VerbPause:
		e.doc.Paused, e.doc.PausedBy, e.doc.PausedWhy = true, a.By, why
	case VerbResume:
		e.doc.Paused, e.doc.PausedBy, e.doc.PausedWhy = false, "", ""
	case VerbSkip:
		if a.Version == "" {
			c := e.decision.Candidate
			if c == nil {
				return refuse("there is no candidate to skip; say which version")
			}
			a.Version = c.Version
			if c.Kind == policy.KindToolchain {
				a.GoVersion = c.GoVersion
			}
		}
		p := Pair{a.Version, a.GoVersion}
		if err := e.checkPair(p); err != nil {
			return err
		}
		if p.Version == e.running().Version && p.GoVersion == "" {
			return refuse("%s runs; a running version can't be skipped", p.Version)
		}
		if e.doc.skipped(p) {
			return refuse("%s is skipped already", p.Version)
		}
		if why == "" {
			why = "by " + a.By
		}
		if len(e.doc.Skips) >= maxSkips {
			return refuse("%d versions are skipped; unskip some", maxSkips)
		}
		e.doc.Skips = append(e.doc.Skips, Skip{Pair: p, By: a.By, Why: why, Time: e.now()})
	case VerbUnskip:
		n := len(e.doc.Skips)
		e.doc.Skips = slices.DeleteFunc(e.doc.Skips, func(s Skip) bool {
			return s.Version == a.Version && (a.GoVersion == "" || s.GoVersion == a.GoVersion)
		})
		if len(e.doc.Skips) == n {
			return refuse("%s is not skipped", a.Version)
		}
	case VerbPin:
		p := Pair{a.Version, a.GoVersion}
		if p.Version == "" {
			p = e.running()
		}
		if err := e.checkPair(p); err != nil {
			return err
		}
		e.doc.Pin = &p
	case VerbUnpin:
		if e.doc.Pin == nil {
			return refuse("no version is pinned")
		}
		e.doc.Pin = nil
	default:
		return refuse("there is no action %q", a.Verb)
	}
	if err := e.save(); err != nil {
		e.doc.Hold, e.doc.HoldBy, e.doc.Pin, e.doc.Skips = old.Hold, old.HoldBy, old.Pin, old.Skips
		e.doc.Paused, e.doc.PausedBy, e.doc.PausedWhy = old.Paused, old.PausedBy, old.PausedWhy
		return refuse("the decision can't be kept: %v", err)
	}
	a.Reason = why
	e.recordDecision(a, Pair{a.Version, a.GoVersion})
	e.replan()
	return nil
}

const maxSkips = 100

// checkPair refuses what can't be a version.
func (e *Engine) checkPair(p Pair) error {
	s := e.specFor(p)
	if p.GoVersion == "" {
		s.GoVersion = e.running().GoVersion
	}
	if err := s.Check(); err != nil {
		return refuse("%v", err)
	}
	return nil
}

// Status returns what there is to know.
func (e *Engine) Status(ctx context.Context) (s Status, err error) {
	err = e.do(ctx, func() { s = e.status() })
	e.restLater()
	return s, err
}

// restLater gives back the memory that answering took, when it has been quiet
// for a while and discovery doesn't keep us busy anyway.
func (e *Engine) restLater() {
	if e.deps.Rest == nil || e.conf().Updates.Interval.D() < restPause || !e.resting.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(restPause, func() {
		e.resting.Store(false)
		e.deps.Rest()
	})
}

func (e *Engine) status() Status {
	now := e.now()
	s := Status{
		API: APIVersion, Now: now, Self: e.selfStatus(now), Knowledge: e.knowledge, LastResult: e.doc.Last,
		Paused: e.doc.Paused, PausedBy: e.doc.PausedBy, PausedReason: e.doc.PausedWhy, Hold: e.doc.Hold, HoldBy: e.doc.HoldBy,
		Pin: e.doc.Pin, Skips: slices.Clone(e.doc.Skips), Events: slices.Clone(e.doc.Events), History: slices.Clone(e.history),
	}
	s.Scheduled = e.appointed()
	s.Service = e.serviceStatus()
	for _, b := range e.doc.Installed {
		s.Kept = append(s.Kept, Kept{Pair: b.Pair, Sum: b.Sum, File: b.File, Size: b.Size, Since: b.Since, Running: b.File == e.current})
	}
	s.Plan = e.planStatus()
	if e.busy() {
		s.Update = e.updateStatus(e.doc.Update, now)
	}
	s.Code, s.Summary = e.summary(&s)
	return s
}

func (e *Engine) serviceStatus() ServiceStatus {
	i := e.info.Spec
	s := ServiceStatus{
		Module: i.Module, Package: i.Dir, Version: i.Version, GoVersion: i.GoVersion, GOOS: i.GOOS, GOARCH: i.GOARCH,
		Sum: e.sum, Path: e.conf().Service.Path, Binary: e.current, Restarts: e.restarts, Health: e.health,
	}
	s.Name = filepath.Base(s.Path)
	if i.Module != "" {
		s.Name = i.Command()
	}
	if b := e.doc.binary(e.current); b != nil {
		s.Since = b.Since
	}
	if e.infoErr != nil {
		s.Warning = e.infoErr.Error()
	}
	s.Handover = e.listening.status()
	if e.proc != nil {
		select {
		case <-e.proc.Done():
		default:
			s.Running, s.Pid, s.Started = true, e.proc.Pid(), e.proc.Started()
			if n := e.session(e.proc); n != nil {
				s.Says = n.State().Status
			}
		}
	}
	if s.Warning == "" {
		s.Warning = e.conf().userWarning()
	}
	if s.Warning == "" {
		s.Warning = accessWarning(e.conf().cred, e.place.Path, e.current)
	}
	if !s.Running && e.lastExit != "" {
		s.Warning = "the service " + e.lastExit
	}
	return s
}

func (e *Engine) planStatus() Plan {
	d := e.decision
	p := Plan{Reason: d.Reason}
	if c := d.Candidate; c != nil {
		p.Candidate = &Candidate{Pair: pairOf(c.Pair), Kind: c.Kind, Why: c.Why, Manual: c.Manual}
		if against := e.automatic(c); against == "" {
			w := e.when(c, e.doc.Update, e.now())
			p.Automatic, p.Candidate.When, p.Candidate.Wait = true, w.At, waitWords(c, w)
		} else {
			p.Candidate.Wait, p.Reason = against, against
		}
		if f, ok := e.doc.Failures[p.Candidate.Pair.String()]; ok {
			p.Candidate.Wait = f.words()
		}
		if ap := e.doc.Appointment; ap != nil && ap.Pair == p.Candidate.Pair {
			p.Automatic, p.Reason, p.Candidate.When, p.Candidate.Wait = true, "", ap.At, ap.By+" asked for this time"
		}
	}
	p.Versions = verdicts(d, e.atHand)
	return p
}

// verdicts says of each known version what becomes of it.
func verdicts(d policy.Decision, atHand func(Pair) bool) []VersionVerdict {
	var list []VersionVerdict
	for _, v := range d.Verdicts {
		pair := Pair{v.Version, v.GoVersion}
		running := v.Kind == policy.KindRunning
		list = append(list, VersionVerdict{
			Pair: pair, Path: v.Path, Kind: v.Kind, Discovered: v.Discovered, Chosen: v.Chosen, Running: running, Installed: running || atHand(pair),
			Skipped: v.Skipped, Pinned: v.Pinned, Retracted: v.Retracted, Deprecated: v.Deprecated, Reason: v.Reason,
		})
	}
	return list
}

func (e *Engine) atHand(p Pair) bool {
	return slices.ContainsFunc(e.doc.Installed, func(b installed) bool { return b.Pair == p })
}

func (e *Engine) updateStatus(u *update, now time.Time) *UpdateProgress {
	p := e.progressOf(u, now, stepNames, stepOrder)
	if u.State == StateProbation && e.health.Detail != "" {
		p.Detail += "; " + e.health.Detail
	}
	return p
}

// progressOf shows an update under way, of the service or of upkeep itself:
// there is only one of both at a time.
func (e *Engine) progressOf(u *update, now time.Time, stepNames map[State]string, order []State) *UpdateProgress {
	p := &UpdateProgress{
		ID: u.ID, Kind: u.Kind, From: u.From, To: u.To, By: u.By, State: u.State, Step: e.progress.Step, Detail: e.progress.Detail,
		Percent: e.progress.Percent, Started: u.Started, StepFrom: u.StepFrom, Deadline: u.Deadline, Log: slices.Clone(e.updateLog),
	}
	if p.Step == "" {
		p.Step = stepNames[u.State]
	}
	if u.State == StateProbation || u.State == StateWatched {
		if left := u.Deadline.Sub(now); left > 0 {
			p.Detail = fmt.Sprintf("%d s left", int(left.Seconds()+0.999))
		}
	} else {
		p.Deadline = time.Time{}
	}
	p.Steps = slices.Clone(u.StepsDone)
	p.Steps = append(p.Steps, Step{State: u.State, Name: stepNames[u.State], Now: true, Took: now.Sub(u.StepFrom)})
	if u.State == StateRollingBack || u.State == StateRolledBack {
		order = []State{StateRollingBack, StateRolledBack}
	}
	if i := slices.Index(order, u.State); i >= 0 {
		for _, s := range order[i+1:] {
			p.Steps = append(p.Steps, Step{State: s, Name: stepNames[s]})
		}
	}
	return p
}

// Logs returns the service's last lines of output.
func (e *Engine) Logs(n int) []string {
	if e.deps.Output == nil {
		return nil
	}
	return e.deps.Output.Lines(n)
}

// Watch sends after changes of the status until ctx ends.
func (e *Engine) Watch(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	e.subsMu.Lock()
	e.subs[c] = true
	e.subsMu.Unlock()
	context.AfterFunc(ctx, func() {
		e.subsMu.Lock()
		delete(e.subs, c)
		e.subsMu.Unlock()
	})
	return c
}

func (e *Engine) changed() {
	e.subsMu.Lock()
	defer e.subsMu.Unlock()
	for c := range e.subs {
		select {
		case c <- struct{}{}:
		default: // told already
		}
	}
}

// Reload reads the configuration again. One that is wrong is not used, neither
// in whole nor in part.
func (e *Engine) Reload(ctx context.Context) error {
	if e.deps.Reload == nil {
		return refuse("there is no configuration file to read again")
	}
	cfg, settle, err := e.deps.Reload()
	if err == nil {
		err = cfg.CheckStart()
	}
	if err == nil {
		err = cfg.findUser()
	}
	if old := e.conf(); err == nil && (cfg.State != old.State || cfg.Service.Path != old.Service.Path) {
		err = errors.New("state and service.path can't change while upkeep runs; restart it")
	}
	accepted := false
	doErr := e.do(ctx, func() {
		if err == nil && e.selfBusy() {
			err = errors.New("upkeep is updating itself; the new version reads it")
		}
		if err == nil && settle != nil {
			// What else changes with it comes first: when that is refused, nothing is in force.
			accepted, err = true, settle(true)
		}
		if err != nil {
			e.deps.Self.ConfigErr = err.Error()
			e.metrics.reloadOK.Set(0)
			e.log.Error("the configuration is wrong; the one before stays in force", "err", err)
			e.changed()
			return
		}
		e.deps.Self.ConfigErr = ""
		e.metrics.reloadOK.Set(1)
		e.deps.UpdatesErr = cfg.CheckUpdates()
		e.useConfig(cfg)
		e.log.Info("configuration read again")
		e.replan()
		select {
		case e.kick <- struct{}{}:
		default:
		}
	})
	if !accepted && settle != nil {
		err = errors.Join(err, settle(false))
	}
	if doErr != nil {
		return doErr
	}
	if err != nil {
		return refuse("the configuration is wrong: %v", err)
	}
	return nil
}
