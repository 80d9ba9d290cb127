package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/process"
)

// selfSteps are the lines of the progress display of an update of upkeep.
var selfSteps = map[State]string{
	StateFetching:   "Build, download and verify",
	StateVerified:   "Check what it says of itself",
	StateProbation:  "Try it beside the running one",
	StateStarting:   "Take over, with everything that is open",
	StateWatched:    "Watch it in command, with the version before standing by",
	StateSwitching:  "Put it under upkeep's name",
	StateCommitted:  "Done",
	StateRolledBack: "The version before goes on",
}

var selfOrder = []State{StateFetching, StateVerified, StateProbation, StateStarting, StateWatched, StateSwitching, StateCommitted}

// kindOther is the kind of verification failures of binaries that aren't what
// they were said to be.
const kindOther = "other_binary"

func (e *Engine) newSelfUpdate(kind, step string, to Pair, by string, asked bool) *update {
	return &update{
		ID:   e.now().UTC().Format("20060102T150405") + "-" + strconv.FormatInt(int64(e.now().Nanosecond()/1000), 36),
		Kind: kind, Step: step, From: e.selfRunning(), To: to, FromFile: e.deps.Self.Binary, ToFile: e.selfFile(to), By: by, Asked: asked, State: StateIdle,
	}
}

func (e *Engine) launchSelf(u *update) {
	u.Started, u.From = e.now(), e.selfRunning()
	e.updateLog, e.progress = nil, Progress{}
	e.doc.Self.Update = u
	e.selfEvent(evGo, "")
}

// selfEvent takes an event through the machine of upkeep's own updates, as
// [Engine.event] does for the service's.
func (e *Engine) selfEvent(ev event, reason string) {
	u := e.doc.Self.Update
	if u == nil {
		return
	}
	from := u.State
	to, err := nextIn(selfTransitions, from, ev)
	if err != nil {
		e.log.Error(err.Error())
		return
	}
	if to == from {
		return
	}
	now := e.now()
	if reason != "" && (to == StateRolledBack || to == StateIdle || to == StateCommitted) {
		u.Reason = reason
	}
	if from != StateIdle && from != StateScheduled {
		u.StepsDone = append(u.StepsDone, Step{State: from, Name: selfSteps[from], Done: true, Took: now.Sub(u.StepFrom)})
	}
	u.StepFrom, e.progress = now, Progress{}
	if to != StateIdle && to != StateScheduled {
		e.logLine(selfSteps[to])
		e.log.Info("update of upkeep", "id", u.ID, "from", u.From.String(), "to", u.To.String(), "state", to, "reason", reason)
	}
	u.State = to
	switch to {
	case StateIdle:
		e.leaveSelf(u, from, ev)
	case StateCommitted:
		e.commitSelf(u)
	case StateRolledBack:
		e.rolledBackSelf(u)
	}
	if err := e.save(); err != nil {
		switch to {
		case StateFetching, StateVerified, StateProbation, StateStarting:
			u.Reason = "the journal can't be written: " + err.Error()
			u.State = StateIdle
			e.leaveSelf(u, from, evFail)
			to = StateIdle
		}
	}
	e.overtakeSelf(func() { e.enterSelf(u, to) })
	e.changed()
}

func (e *Engine) overtakeSelf(then func()) {
	if w := e.selfWork; w != nil && !w.done {
		w.then = then
		w.cancel()
		return
	}
	then()
}

// startSelf runs a state's work.
func (e *Engine) startSelf(u *update, f func(ctx context.Context) outcome) {
	ctx, cancel := context.WithCancel(e.killCtx)
	w := &work{cancel: cancel}
	e.selfWork = w
	go func() {
		out := f(ctx)
		cancel()
		e.post(func() {
			w.done = true
			if out.apply != nil {
				out.apply(u)
			}
			if w.then != nil {
				w.then()
				return
			}
			if out.err != nil {
				out.reason = out.err.Error()
				var verify *VerificationError
				if errors.As(out.err, &verify) {
					u.refused = true
					e.addEvent(Event{Kind: verify.Kind, Security: true, Version: u.To.Version, Text: "upkeep " + out.reason})
				}
				e.rememberIn(e.doc.Self.Failures, u, out.err)
			}
			e.selfEvent(out.event, out.reason)
		})
	}()
}

// enterSelf begins the work of a state.
func (e *Engine) enterSelf(u *update, s State) {
	c := *u
	switch s {
	case StateIdle:
		if u.open != nil {
			u.open.Close()
			u.open = nil
		}
		if e.stopping && !e.busy() {
			e.stopService()
			return
		}
		e.replan()
	case StateFetching:
		f := fetching{u: c, old: e.deps.Self.Binary, spec: e.selfSpec(c.To), place: e.selfPlace(), list: &e.doc.Self.Installed, keepAs: e.selfFile(c.From),
			own: e.deps.Self.Binary}
		if have := f.list.find(c.ToFile); have != nil && have.Pair == c.To {
			f.have = new(*have)
		}
		if kept := f.list.find(f.old); kept != nil {
			f.kept = new(*kept)
		}
		e.startSelf(u, func(ctx context.Context) outcome { return e.fetch(ctx, f) })
	case StateVerified:
		e.startSelf(u, func(context.Context) outcome { return e.openSelf(c) })
	case StateProbation:
		u.Deadline, u.Boot = e.now().Add(e.conf().Self.Probation.D()), process.BootID()
		t, err := e.newTrial(c)
		e.startSelf(u, func(ctx context.Context) outcome {
			if err != nil {
				return outcome{event: evFail, reason: err.Error()}
			}
			return e.try(ctx, t)
		})
	case StateStarting:
		e.startSelf(u, func(ctx context.Context) outcome { return e.handOver(ctx, c) })
	case StateWatched:
		wait := e.conf().Self.Probation.D()
		u.Deadline = e.now().Add(wait)
		e.startSelf(u, func(ctx context.Context) outcome {
			if err := e.deps.Standby.proven(ctx, wait); err != nil {
				return outcome{event: evStop}
			}
			return outcome{event: evDone}
		})
	case StateSwitching:
		e.startSelf(u, func(context.Context) outcome {
			if err := e.selfPlace().Switch(c.ToFile); err != nil {
				return outcome{event: evFail, reason: err.Error(), apply: func(n *update) {
					e.addEvent(Event{Kind: "self_not_switched", Version: n.To.Version,
						Text: fmt.Sprintf("upkeep %s runs, but its name still stands for %s: %v", n.To, n.From, err)})
				}}
			}
			return outcome{event: evDone}
		})
	case StateCommitted:
		e.record(e.selfResult(u, ResultInstalled))
		e.pruneList(&e.doc.Self.Installed, e.doc.Self.Skips, e.selfPlace(), e.deps.Self.Binary)
		e.selfEvent(evDone, "")
	case StateRolledBack:
		e.record(e.selfResult(u, ResultRolledBack))
		e.selfEvent(evDone, "")
	}
}

// openSelf opens the new binary, and verifies what it has opened.
func (e *Engine) openSelf(u update) outcome {
	f, err := os.Open(u.ToFile)
	if err != nil {
		return outcome{event: evFail, err: err}
	}
	forget := func(n *update) { e.doc.Self.Installed.forget(n.ToFile) }
	if err := install.CheckOpen(f, u.ToSum); err != nil {
		f.Close()
		return outcome{event: evFail, err: &VerificationError{kindChanged, err}, apply: forget}
	}
	// What it is was recorded by the builder; a binary of another module in
	// upkeep's place would end the service.
	info, err := e.deps.Inspect(u.ToFile)
	want := e.selfSpec(u.To)
	if err == nil {
		got := info.Spec
		if got.Module != want.Module || got.Dir != want.Dir || got.Version != want.Version || got.GoVersion != want.GoVersion {
			err = fmt.Errorf("%s is %s %s of %s/%s, which is not what was asked for", u.ToFile, got.Version, got.GoVersion, got.Module, got.Dir)
		}
	}
	if err != nil {
		f.Close()
		return outcome{event: evFail, err: &VerificationError{kindOther, err}, apply: forget}
	}
	if e.deps.CheckConfig != nil {
		if err := e.deps.CheckConfig(); err != nil {
			f.Close()
			return outcome{event: evFail, err: fmt.Errorf("a new version would start with the configuration on disk, which is wrong: %w", err)}
		}
	}
	return outcome{event: evDone, apply: func(n *update) { n.open = f }}
}

func (e *Engine) selfResult(u *update, result string) Result {
	r := e.result(u, result)
	r.Downtime = 0
	return r
}

// leaveSelf ends an update that came to nothing.
func (e *Engine) leaveSelf(u *update, from State, ev event) {
	e.doc.Self.Update = nil
	if from == StateIdle || from == StateScheduled || from == StateCommitted || from == StateRolledBack {
		return
	}
	r := e.selfResult(u, ResultFailed)
	switch {
	case u.refused:
		r.Result = ResultRefused
	case ev != evFail:
		r.Result = ResultCancelled
		if ev == evRecover {
			r.Reason = "upkeep ended while it was preparing an update of itself"
		}
		if ev == evExit {
			// Not at once: a service that keeps ending would have it tried for ever.
			e.rememberIn(e.doc.Self.Failures, u, errors.New(r.Reason))
		}
	}
	e.doc.Self.Last = &r
	e.record(r)
}

// commitSelf is said by the new version.
func (e *Engine) commitSelf(u *update) {
	d := &e.doc.Self
	d.Since = e.now()
	d.Installed.replaced(u.FromFile, u.ToFile, d.Since)
	delete(d.Failures, u.To.String())
	if u.Kind == kindSelfRollback && !skips(d.Skips, u.From) {
		d.Skips = append(d.Skips, Skip{Pair: u.From, Sum: u.FromSum, By: u.By, Time: e.now(), Why: "somebody went back to " + u.To.Version})
	}
	r := e.selfResult(u, ResultInstalled)
	d.Last = &r
}

// rolledBackSelf keeps what was learned from a version of upkeep that failed.
func (e *Engine) rolledBackSelf(u *update) {
	d := &e.doc.Self
	r := e.selfResult(u, ResultRolledBack)
	d.Last = &r
	again := d.Failures[u.To.String()].Count > 0
	if !u.Blame {
		e.rememberIn(d.Failures, u, errors.New(u.Reason))
	}
	if (u.Blame || again) && !skips(d.Skips, u.To) {
		d.Skips = append(d.Skips, Skip{Pair: u.To, Sum: u.ToSum, By: "upkeep", Time: e.now(), Why: "upkeep went on as it was: " + u.Reason})
	}
	e.addEvent(Event{Kind: "self_rolled_back", Version: u.To.Version,
		Text: fmt.Sprintf("upkeep %s did not take over from %s, which goes on: %s", u.To, u.From, u.Reason)})
}

// recoverSelf finishes what the program before had under way with upkeep itself.
func (e *Engine) recoverSelf() {
	u := e.doc.Self.Update
	switch {
	case u == nil:
	case u.State == StateScheduled || u.State == StateIdle:
		e.doc.Self.Update = nil
	case u.State != StateStarting && u.State != StateWatched && u.State != StateSwitching:
		e.selfEvent(evRecover, "upkeep ended while it was preparing an update of itself")
	case e.selfRunning() == u.To:
		// Started under upkeep's name, so it had proven itself; TookOver follows.
		u.State = StateStarting
	case e.standIn.Reason != "":
		u.Blame = !e.standIn.Stop
		e.selfEvent(evRecover, e.standIn.Reason)
	default:
		// Without a reboot in between it was the new version that ended.
		u.Blame = u.Boot != "" && u.Boot == process.BootID()
		e.selfEvent(evRecover, fmt.Sprintf("it took over, and then upkeep ended (state %q)", u.State))
	}
}

// TookOver is told by the program when it has taken over everything that the
// version before handed over.
func (e *Engine) TookOver() {
	e.post(func() {
		u := e.doc.Self.Update
		if u == nil || u.State != StateStarting || u.To != e.selfRunning() {
			return
		}
		e.log.Info("took over", "from", u.From.String(), "to", u.To.String(), "pid", os.Getpid(), "after", e.now().Sub(u.StepFrom).Round(time.Millisecond))
		e.selfEvent(evDone, "")
	})
}
