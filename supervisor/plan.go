package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/schedule"
)

// policyInput is what is known, for a decision.
func (e *Engine) policyInput() policy.Input {
	cfg := e.conf().Updates
	in := policy.Input{
		Now: e.now(), Running: e.running().policy(), Level: cfg.Policy, Toolchain: cfg.Toolchain,
		Prerelease: cfg.Prerelease, Pseudo: cfg.Pseudo, Delay: cfg.Delay.D(), RestartDelay: cfg.RestartDelay, Hold: e.doc.Hold,
	}
	if e.doc.Pin != nil {
		in.Pin = new(e.doc.Pin.policy())
	}
	for _, s := range e.doc.Skips {
		in.Skips = append(in.Skips, policy.Skip{Version: s.Version, GoVersion: s.GoVersion, Why: s.Why})
	}
	in.Refused = refused(e.doc.Failures, in.Now)
	k := e.doc.Known
	if k == nil {
		return in
	}
	have := map[string]bool{}
	add := func(r policy.Release) {
		if key := r.Path + "@" + r.Version; !have[key] {
			have[key] = true
			r.Discovered = e.discovered(key, r.Discovered)
			in.Releases = append(in.Releases, r)
		}
	}
	for _, r := range k.Releases {
		add(r)
	}
	for _, r := range e.listed[semver.MajorMinor(in.Running.Version)] {
		add(r)
	}
	for _, g := range k.GoReleases {
		g.Discovered = e.discovered(g.Version, g.Discovered)
		in.GoReleases = append(in.GoReleases, g)
	}
	return in
}

// refused are the builds that failed and would fail again: while they wait,
// an older Go version is tried.
func refused(failures map[string]failure, now time.Time) []policy.Pair {
	var list []policy.Pair
	for _, f := range failures {
		if f.Permanent && f.Until.After(now) {
			list = append(list, f.Pair.policy())
		}
	}
	return list
}

// forgotten is for how long what isn't told of any more is remembered.
const forgotten = 90 * 24 * time.Hour

// forget drops what was remembered of versions that nobody tells of any more.
func forget(first map[string]time.Time, failures map[string]failure, in policy.Input) {
	known := map[string]bool{}
	for _, r := range in.Releases {
		known[r.Path+"@"+r.Version] = true
	}
	for _, g := range in.GoReleases {
		known[g.Version] = true
	}
	for key, t := range first {
		if !known[key] && in.Now.Sub(t) > forgotten {
			delete(first, key)
		}
	}
	for key, f := range failures {
		if in.Now.Sub(f.Until) > forgotten {
			delete(failures, key)
		}
	}
}

// discovered bounds what an index says of a version's age by when it was first
// seen here: a missing time or one in the future must not last for ever.
func (e *Engine) discovered(key string, said time.Time) time.Time {
	return e.seen(e.doc.FirstSeen, key, said)
}

func (e *Engine) seen(first map[string]time.Time, key string, said time.Time) time.Time {
	seen, ok := first[key]
	if !ok {
		seen = e.now()
		first[key] = seen
		e.dirty = true
	}
	if said.IsZero() || said.After(seen) {
		return seen
	}
	return said
}

// replanMax bounds the wait for a scheduled time, so that a clock that jumps
// is noticed.
const replanMax = 5 * time.Minute

// replan decides anew what is installed when. It does nothing while an update
// is under way; its end comes here again.
func (e *Engine) replan() {
	if e.planTimer != nil {
		e.planTimer.Stop()
		e.planTimer = nil
	}
	in := e.policyInput()
	e.decision = policy.Decide(in)
	e.metrics.plan(e.decision, e.doc)
	defer e.changed()
	defer e.replanSelf()
	e.metrics.holds(e.heldBy())
	u := e.doc.Update
	if e.busy() || e.selfBusy() || e.stopping || e.trial {
		return
	}
	e.repair()
	if e.keepAppointment() {
		return
	}
	c := e.decision.Candidate
	if c == nil || e.automatic(c) != "" {
		if u != nil {
			e.event(evUnplan, "")
		}
		return
	}
	to := pairOf(c.Pair)
	if u == nil || u.To != to || u.From != e.running() {
		u = e.newUpdate(kindUpdate, c.Kind, to, "policy", false)
		u.Started = in.Now // from when the jitter counts
		e.doc.Update = u
	}
	w := e.when(c, u, in.Now)
	switch {
	case w.At.IsZero():
		// Its windows never open; Status says so.
	case !w.At.After(in.Now):
		e.launch(u)
		return
	default:
		e.planTimer = time.AfterFunc(min(w.At.Sub(in.Now), replanMax), func() { e.post(e.replan) })
	}
	// Minor changes of the time aren't worth a write.
	if d := w.At.Sub(u.When); u.State == StateIdle || d > time.Minute || d < -time.Minute {
		u.When = w.At
		e.event(evPlan, "")
	}
	u.When = w.At
	e.metrics.scheduled.Set(unixTime(u.When))
}

// automatic returns why a candidate doesn't go by itself, "" when it does.
func (e *Engine) automatic(c *policy.Candidate) string {
	switch {
	case c.Manual:
		return e.decision.Reason
	case e.doc.Paused:
		return "updates are paused"
	case e.deps.UpdatesErr != nil:
		return "updates are off: " + e.deps.UpdatesErr.Error()
	case e.infoErr != nil:
		return "updates are off: " + e.infoErr.Error()
	case e.stateErr != nil:
		return "updates are off: " + e.stateErr.Error()
	case e.doc.Repair != "":
		return "updates are off: the service's name stands for a version that was rolled back"
	}
	return ""
}

// heldBy names what keeps the candidate from being installed now, "" when
// nothing does or there is none.
func (e *Engine) heldBy() string {
	c := e.decision.Candidate
	switch {
	case c == nil:
		return ""
	case e.doc.Appointment != nil && e.doc.Appointment.Pair == pairOf(c.Pair):
		return "appointment"
	case e.doc.Hold:
		return "hold"
	case c.Manual:
		return "policy"
	case e.doc.Paused:
		return "pause"
	case e.deps.UpdatesErr != nil:
		return "config"
	case e.infoErr != nil:
		return "binary"
	case e.stateErr != nil || e.doc.Repair != "":
		return "state"
	}
	return e.when(c, e.doc.Update, e.now()).Kind
}

func (e *Engine) when(c *policy.Candidate, u *update, now time.Time) schedule.When {
	in := schedule.Input{
		Now: now, NotBefore: c.NotBefore, Windows: e.windows, Jitter: e.conf().Updates.Jitter.D(),
		Seed: e.doc.Seed + c.Version + c.GoVersion,
	}
	if f, ok := e.doc.Failures[pairOf(c.Pair).String()]; ok {
		in.Retry = e.retryAt(f, now)
	}
	if u != nil {
		in.Spread = u.Started
	}
	return schedule.At(in)
}

// retryAt is when something that failed is tried again.
func (e *Engine) retryAt(f failure, now time.Time) time.Time {
	cfg := e.conf().Updates
	longest := cfg.BackoffMax.D()
	if f.Cancelled {
		longest = cancelPause(cfg)
	}
	// A clock that was set back must not make the wait longer than it is at most.
	if limit := now.Add(longest); f.Until.After(limit) {
		return limit
	}
	return f.Until
}

// cancelPause is for how long an update that somebody cancelled isn't begun
// again by itself: what that person wants to do about it needs a while.
func cancelPause(cfg UpdatesConfig) time.Duration { return max(cfg.Interval.D(), time.Hour) }

// askTimeout bounds one round of discovery.
const askTimeout = time.Minute

// poll asks for new versions until ctx ends.
func (e *Engine) poll(ctx context.Context) {
	failures := 0
	timer := time.NewTimer(e.firstAsk(ctx))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-e.kick:
		}
		err := e.ask(ctx)
		if err != nil {
			failures++
		} else {
			failures = 0
		}
		e.askSelf(ctx)
		pause := e.nextAsk(ctx, failures)
		timer.Reset(pause)
		if e.deps.Rest != nil && pause >= restPause {
			e.deps.Rest()
		}
	}
}

// spread changes a time a little, so that many machines don't ask at the same
// moment for ever.
func spread(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.1*float64(d))
}

// recheckMax is the longest wait after a failure: an index that is well again is
// noticed soon, however long the interval is.
const recheckMax = 30 * time.Minute

// askPause is the time until the next question, after so many failures in a row.
func askPause(cfg UpdatesConfig, failures int) time.Duration {
	if failures == 0 {
		return cfg.Interval.D()
	}
	// Without any back-off in the configuration nobody is asked in a tight loop.
	least := max(cfg.BackoffMin.D(), time.Second)
	return min(cfg.Interval.D(), schedule.Backoff(failures, least, recheckMax))
}

// restPause is how long a pause has to be for giving memory back before it.
const restPause = 20 * time.Second

var errNoModule = errors.New("the service's module is not known")

// ask asks for new versions once.
func (e *Engine) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var path, line string
	var need bool
	if err := e.do(ctx, func() {
		path = e.info.Spec.Module
		if path == "" {
			path = e.conf().Service.Module
		}
		need, line = e.decision.NeedList, semver.MajorMinor(e.info.Spec.Version)
	}); err != nil {
		return err
	}
	if e.deps.Versions == nil || path == "" {
		e.post(func() { e.learned(path, Known{}, errNoModule) })
		return errNoModule
	}
	k, err := e.deps.Versions.Ask(ctx, path)
	if err == nil {
		k.Releases = append(k.Releases, e.majors(ctx, path)...)
	}
	if e.ended != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return err
	}
	e.post(func() { e.learned(path, k, err) })
	if err == nil && need {
		list, errList := e.deps.Versions.List(ctx, path, line)
		e.post(func() {
			if errList != nil {
				e.log.Warn("patches of the running line can't be listed", "line", line, "err", errList)
				return
			}
			e.listed[line] = list
			e.replan()
		})
	}
	return err
}

// askSelf asks for new versions of upkeep itself.
func (e *Engine) askSelf(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var path, line string
	var need bool
	if err := e.do(ctx, func() {
		if e.selfOff() == "" {
			path = e.deps.Self.Module
		}
		need, line = e.selfDecision.NeedList, semver.MajorMinor(e.deps.Self.Version)
	}); err != nil || path == "" || e.deps.Versions == nil {
		return
	}
	k, err := e.deps.Versions.Ask(ctx, path)
	var listed []policy.Release
	if err == nil && need {
		var errList error
		if listed, errList = e.deps.Versions.List(ctx, path, line); errList != nil {
			e.log.Warn("patches of upkeep's own line can't be listed", "line", line, "err", errList)
		}
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	e.post(func() { e.learnedSelf(k, listed, err) })
}

// majorsEvery is the least time between questions for other major versions.
const majorsEvery = time.Hour

// majors asks for major versions under other module paths, to show them. That
// there is none is the rule, and whatever is wrong with the answer is no
// reason for anything, since none of them is ever installed.
func (e *Engine) majors(ctx context.Context, path string) []policy.Release {
	if time.Since(e.majorsAsked) < majorsEvery && !e.majorsAsked.IsZero() && e.majorsOf == path {
		return e.majorsSeen
	}
	e.majorsAsked, e.majorsOf, e.majorsSeen = time.Now(), path, nil
	prefix, major, ok := module.SplitPathVersion(path)
	if !ok || strings.HasPrefix(path, "gopkg.in/") {
		return nil
	}
	n := 1
	if major != "" {
		n, _ = strconv.Atoi(major[len("/v"):])
	}
	for range maxMajors {
		n++
		next := fmt.Sprintf("%s/v%d", prefix, n)
		k, err := e.deps.Versions.Ask(ctx, next)
		if err != nil {
			break
		}
		found := false
		for _, r := range k.Releases {
			if r.Path == "" && module.CheckPathMajor(r.Version, fmt.Sprintf("/v%d", n)) == nil && semver.Prerelease(r.Version) == "" {
				r.Path, found = next, true
				e.majorsSeen = append(e.majorsSeen, r)
			}
		}
		if !found {
			break
		}
	}
	return e.majorsSeen
}

// maxMajors bounds how many major versions ahead are asked for.
const maxMajors = 5

// learned takes what discovery found.
func (e *Engine) learned(path string, k Known, err error) {
	now := e.now()
	e.knowledge.Asked, e.knowledge.StaleSince, e.knowledge.Silent = now, k.StaleSince, k.Silent
	for _, ev := range k.Events {
		e.addEvent(ev)
	}
	if err != nil {
		e.metrics.discoveryFailures.Inc()
		if !sameText(e.knowledge.Error, err.Error()) {
			e.log.Warn("versions can't be learned", "err", err)
		}
		e.knowledge.Error, e.knowledge.Unavailable = err.Error(), true
		var verify *VerificationError
		if errors.As(err, &verify) {
			e.addEvent(Event{Kind: verify.Kind, Security: true, Text: err.Error()})
		}
		if k.Source == "" {
			e.replan()
			return
		}
	} else {
		e.knowledge.Error, e.knowledge.Unavailable = "", false
		e.knowledge.Fresh = now
		e.metrics.discoverySuccess.Set(unixTime(now))
	}
	e.knowledge.Source, e.knowledge.Proof, e.knowledge.LogSize = k.Source, k.Proof, k.LogSize
	e.metrics.logSize.Set(float64(k.LogSize))
	e.doc.Known = &known{Module: path, Releases: k.Releases, GoReleases: k.GoReleases, Source: k.Source, Proof: k.Proof, LogSize: k.LogSize, At: now}
	seen := len(e.doc.FirstSeen)
	e.replan()
	forget(e.doc.FirstSeen, e.doc.Failures, e.policyInput())
	// First sightings are kept at once, since delays count from them; the rest can wait.
	if len(e.doc.FirstSeen) != seen || e.dirty && now.Sub(e.saved) > time.Minute {
		_ = e.save() // save reports
	}
}

func unixTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// waitWords says why a candidate isn't installed yet.
func waitWords(c *policy.Candidate, w schedule.When) string {
	switch {
	case c.Wait != "":
		return c.Wait
	case w.Wait != "":
		return fmt.Sprintf("it waits for %s", w.Wait)
	}
	return ""
}
