package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/schedule"
)

const (
	kindUpdate       = "update"
	kindRollback     = "rollback"
	kindSelfUpdate   = "self_update" // of upkeep itself
	kindSelfRollback = "self_rollback"
)

// stepNames are the lines of the progress display.
var stepNames = map[State]string{
	StateFetching:    "Build, download and verify",
	StateVerified:    "Prepare",
	StateStopping:    "Stop the old version",
	StateSwitching:   "Put the new version in its place",
	StateStarting:    "Start the new version",
	StateProbation:   "Probation",
	StateCommitted:   "Done",
	StateRollingBack: "Go back to the previous version",
	StateRolledBack:  "The previous version runs again",
}

var stepOrder = []State{StateFetching, StateVerified, StateStopping, StateSwitching, StateStarting, StateProbation, StateCommitted}

// newUpdate makes the record of an update.
func (e *Engine) newUpdate(kind, step string, to Pair, by string, asked bool) *update {
	return &update{
		ID: e.now().UTC().Format("20060102T150405") + "-" + strconv.FormatInt(int64(e.now().Nanosecond()/1000), 36), Kind: kind, Step: step, From: e.running(), To: to,
		FromFile: e.current, ToFile: e.fileFor(to), By: by, Asked: asked, State: StateIdle,
	}
}

// begin takes an update on its way.
func (e *Engine) launch(u *update) {
	u.Started = e.now()
	u.From, u.FromFile = e.running(), e.current
	e.updateLog, e.progress = nil, Progress{}
	e.doc.Update = u
	e.event(evGo, "")
}

// note writes a line of the update's log.
func (e *Engine) note(u *update, to State, reason string) {
	name := stepNames[to]
	if name == "" {
		name = string(to)
	}
	if reason != "" {
		name += ": " + reason
	}
	e.logLine(name)
	e.log.Info("update", "id", u.ID, "from", u.From.String(), "to", u.To.String(), "state", to, "reason", reason)
}

func (e *Engine) logLine(text string) {
	e.updateLog = append(e.updateLog, e.now().Format("15:04:05 ")+text)
	if len(e.updateLog) > maxUpdateLog {
		e.updateLog = slices.Delete(e.updateLog, 0, len(e.updateLog)-maxUpdateLog)
	}
}

const maxUpdateLog = 200

// say shows progress within a step.
func (e *Engine) say(id string, p Progress) {
	if e.doc.Update == nil || e.doc.Update.ID != id {
		return
	}
	if p.Step != e.progress.Step || p.Step != "downloading" && p.Detail != e.progress.Detail {
		text := p.Step
		if p.Detail != "" {
			text += ": " + p.Detail
		}
		e.logLine(text)
	}
	e.progress = p
	e.changed()
}

// failed is an update that ended before anything was touched.
func (e *Engine) failed(out outcome) {
	u := e.doc.Update
	if u == nil {
		return
	}
	var verify *VerificationError
	if errors.As(out.err, &verify) {
		u.refused = true
		e.addEvent(Event{Kind: verify.Kind, Security: true, Version: u.To.Version, Text: out.err.Error()})
	}
	e.remember(u, out.err)
	e.event(evFail, out.err.Error())
}

// leave ends an update that never touched the service.
func (e *Engine) leave(u *update, from State, ev event) {
	e.doc.Update = nil
	if ev != evFail && (from == StateScheduled || from == StateIdle) {
		return // it never began
	}
	if from == StateCommitted || from == StateRolledBack {
		return // their results are written already
	}
	r := e.result(u, ResultFailed)
	switch {
	case ev == evCancel || ev == evStop:
		r.Result = ResultCancelled
		if r.Reason == "" {
			r.Reason = "upkeep was stopped"
		}
	case ev == evRecover:
		r.Result, r.Reason = ResultCancelled, "upkeep ended while the update was being prepared"
	case u.Reason == errNotNow.Error():
		r.Result = ResultPostponed
	}
	if u.refused {
		r.Result = ResultRefused
	}
	e.doc.Last = &r
	e.record(r)
}

func (e *Engine) result(u *update, result string) Result {
	r := Result{
		ID: u.ID, Kind: u.Kind, Result: result, Reason: u.Reason, From: u.From, To: u.To, Sum: u.ToSum, Builder: u.Builder,
		LogIndex: u.LogIndex, LogSize: u.LogSize, Agreed: u.Agreed, By: u.By, Started: u.Started, Ended: e.now(),
	}
	if !u.Stopped.IsZero() && u.Running.After(u.Stopped) {
		r.Downtime = u.Running.Sub(u.Stopped)
	}
	return r
}

// record writes a result to the history.
func (e *Engine) record(r Result) {
	if err := e.hist.Append(r); err != nil {
		e.log.Error(err.Error())
	}
	e.history = slices.Insert(e.history, 0, r)
	e.history = e.history[:min(len(e.history), maxHistory)]
	e.metrics.result(r)
}

// finishRecord writes the result of an update whose end was journalled but
// perhaps not written down.
func (e *Engine) finishRecord(u *update) {
	if len(e.history) > 0 && e.history[0].ID == u.ID {
		return
	}
	if u.State == StateCommitted {
		e.record(e.result(u, ResultInstalled))
	} else {
		e.record(e.result(u, ResultRolledBack))
	}
}

// remember makes a failed update wait longer each time.
func (e *Engine) remember(u *update, err error) {
	e.rememberIn(e.doc.Failures, u, err)
}

// rememberCancel makes an update that somebody cancelled wait.
func (e *Engine) rememberCancel(u *update, failures map[string]failure, by string) {
	f := failures[u.To.String()]
	f.Until, f.Text, f.Cancelled = e.now().Add(cancelPause(e.conf().Updates)), "it was cancelled by "+by, true
	failures[u.To.String()] = f
}

func (e *Engine) rememberIn(failures map[string]failure, u *update, err error) {
	cfg := e.conf().Updates
	key := u.To.String()
	f := failures[key]
	f.Cancelled, f.Pair, f.Permanent = false, u.To, false
	f.Count++
	f.Text = err.Error()
	limit := cfg.BackoffMax.D()
	if limit < cfg.BackoffMin.D() {
		limit = cfg.BackoffMin.D()
	}
	f.Until = e.now().Add(schedule.Backoff(f.Count, cfg.BackoffMin.D(), limit))
	var permanent *PermanentError
	if errors.As(err, &permanent) {
		// Another Go version helps a build, not what its author took back.
		f.Until, f.Permanent = e.now().Add(limit), !errors.Is(err, errRetracted)
	}
	failures[key] = f
}

// commit makes the new version the one to keep, for the journal.
func (e *Engine) commit(u *update) {
	e.doc.Installed.replaced(u.FromFile, u.ToFile, e.now())
	delete(e.doc.Failures, u.To.String())
	e.crashes = 0
	if u.Kind == kindRollback && !e.doc.skipped(u.From) {
		e.doc.Skips = append(e.doc.Skips, Skip{Pair: u.From, Sum: u.FromSum, By: u.By, Time: e.now(), Why: "somebody went back to " + u.To.Version})
	}
	r := e.result(u, ResultInstalled)
	e.doc.Last = &r
}

// prune removes the binaries that nobody goes back to.
func (e *Engine) prune() {
	e.pruneList(&e.doc.Installed, e.doc.Skips, e.place, e.current)
}

func (e *Engine) pruneList(list *binaryList, unwanted []Skip, place install.Place, current string) {
	n := 0
	for _, b := range list.goodFirst(unwanted) {
		if b.File == current {
			continue
		}
		if n++; n <= e.conf().Updates.Keep {
			if _, err := os.Stat(b.File); err == nil {
				continue
			}
			n--
		}
		if err := place.Remove(b.File); err != nil {
			e.log.Warn(err.Error())
			continue
		}
		list.forget(b.File)
	}
}

// rolledBack keeps what was learned from a version that failed, for the journal.
func (e *Engine) rolledBack(u *update) {
	e.metrics.rollbacks.Inc()
	r := e.result(u, ResultRolledBack)
	e.doc.Last = &r
	if u.Blame {
		e.metrics.probation.Inc()
		if !e.doc.skipped(u.To) {
			e.doc.Skips = append(e.doc.Skips, Skip{Pair: u.To, Sum: u.ToSum, By: "upkeep", Time: e.now(), Why: "it was rolled back: " + u.Reason})
		}
		e.addEvent(Event{Kind: "rolled_back", Version: u.To.Version, Text: fmt.Sprintf("%s was rolled back to %s: %s", u.To, u.From, u.Reason)})
	} else {
		// Not the version's fault, as far as is known; twice is enough all the
		// same, except when somebody stopped the supervisor.
		if !e.stopping {
			again := e.doc.Failures[u.To.String()].Count > 0
			e.remember(u, errors.New(u.Reason))
			if again && !e.doc.skipped(u.To) {
				e.doc.Skips = append(e.doc.Skips, Skip{Pair: u.To, Sum: u.ToSum, By: "upkeep", Time: e.now(), Why: "it was interrupted twice: " + u.Reason})
			}
		}
		e.addEvent(Event{Kind: "rolled_back", Version: u.To.Version, Text: fmt.Sprintf("the update to %s was undone: %s", u.To, u.Reason)})
	}
}

func blame(u *update) { u.Blame = true }

// took makes a started process the service.
func (e *Engine) took(p process.Process) {
	e.proc = p
	e.health = Health{Configured: e.health.Configured}
	e.metrics.up.Set(1)
	e.accompany(p)
	e.admit(p)
	go func() {
		<-p.Done()
		e.post(func() { e.exited(p) })
	}()
	e.changed()
}

// exited handles the end of a process.
func (e *Engine) exited(p process.Process) {
	e.lastExit = p.Exit().String()
	e.metrics.ended(p.Exit())
	if e.proc != p {
		return
	}
	e.metrics.up.Set(0)
	if e.stopping && (e.doc.Update == nil || !e.doc.Update.State.touched()) {
		return // stopService reports
	}
	s := StateIdle
	if e.doc.Update != nil {
		s = e.doc.Update.State
	}
	e.log.Warn("the service ended", "pid", p.Pid(), "how", p.Exit().String(), "state", s)
	switch s {
	case StateStopping, StateRollingBack:
		return // wanted
	case StateStarting, StateProbation:
		blame(e.doc.Update)
		e.event(evExit, "the new version "+p.Exit().String())
		return
	}
	if e.selfBusy() {
		e.selfEvent(evExit, "the service ended in the middle of it")
	}
	e.proc, e.health = nil, Health{Configured: e.health.Configured}
	// What it started is still there and would hold its ports and files.
	if _, err := p.Stop(e.killCtx); err != nil {
		e.log.Error(err.Error())
	}
	e.event(evExit, "")
	if e.conf().Process.Restart == "exit" {
		// Like the service without a supervisor: whoever runs it decides.
		e.quit(p.Exit().Status())
		return
	}
	if p.Exit().After > time.Minute {
		e.crashes = 0
	}
	e.addEvent(Event{Kind: "crashed", Version: e.info.Spec.Version, Text: "the service ended by itself: " + endedHow(p.Exit())})
	e.restartLater()
}

// endedHow leaves the duration out, so that equal ends are one event.
func endedHow(x process.Exit) string {
	x.After = 0
	switch {
	case x.Unknown:
		return "nobody saw how"
	case x.Signal != 0:
		return fmt.Sprintf("killed by signal %d (%v)", int(x.Signal), x.Signal)
	}
	return fmt.Sprintf("exit status %d", x.Code)
}

const (
	restartMin = 100 * time.Millisecond
	restartMax = time.Minute
)

// restartLater starts the service again, after a wait that grows.
func (e *Engine) restartLater() {
	e.crashes++
	wait := schedule.Backoff(e.crashes, restartMin, restartMax)
	e.log.Warn("the service is started again", "in", wait)
	e.front.hold(0)
	time.AfterFunc(wait, func() {
		e.post(func() {
			if e.proc != nil || e.stopping || e.doc.Update != nil && e.doc.Update.State.touched() {
				return
			}
			e.restarts++
			e.metrics.restarts.Inc()
			p, err := e.startProcess(e.processSpec(e.current))
			if err != nil {
				e.unstarted(err)
				e.addEvent(Event{Kind: "service_down", Text: err.Error()})
				e.restartLater()
				return
			}
			e.took(p)
		})
	})
	e.changed()
}

// unstarted notes why nothing runs.
func (e *Engine) unstarted(err error) { e.lastExit = "can't be started: " + err.Error() }

// notStarted is a service that can't be started during an update.
func (e *Engine) notStarted() {
	e.metrics.up.Set(0)
	if e.conf().Process.Restart == "exit" {
		e.quit(1)
		return
	}
	e.restartLater()
}

// startCurrent starts what the service's name stands for.
func (e *Engine) startCurrent() error {
	p, err := e.startProcess(e.processSpec(e.current))
	if err != nil {
		return err
	}
	e.took(p)
	return nil
}

// stop ends the service, then the engine. It wins over an update under way.
func (e *Engine) stop() {
	e.stopping = true
	e.deps.Standby.Leave()
	e.listening.release()
	e.log.Info("stopping")
	if e.selfBusy() {
		e.selfEvent(evStop, "upkeep was stopped") // its end goes on with the stop
		return
	}
	if u := e.doc.Update; u != nil && u.State != StateScheduled {
		switch {
		case u.State == StateRollingBack:
			// Its end sees that the supervisor is stopping.
		case u.State == StateCommitted || u.State == StateRolledBack:
			e.overtake(e.stopService)
		default:
			e.event(evStop, "upkeep was stopped")
		}
		return
	}
	e.stopService()
}

// stopService ends the service and then the engine.
func (e *Engine) stopService() {
	p := e.proc
	if p == nil {
		e.quit(0)
		return
	}
	go func() {
		e.front.hold(e.conf().Proxy.Drain.D())
		_, err := p.Stop(e.killCtx)
		e.post(func() {
			if err != nil {
				e.log.Error(err.Error())
			}
			x := p.Exit()
			status := x.Status()
			if sig, _ := signalByName(e.conf().Process.StopSignal); x.Signal == sig && sig != 0 || x.Unknown {
				status = 0 // it ended as it was asked to
			}
			e.quit(status)
		})
	}()
}

func (e *Engine) quit(status int) {
	if e.dirty {
		_ = e.save() // save reports
	}
	select {
	case e.exit <- status:
	default: // ending already
	}
}

// Forward passes a signal on to the service.
func (e *Engine) Forward(sig os.Signal) {
	e.post(func() {
		if e.proc == nil {
			return
		}
		if err := e.proc.Signal(sig); err != nil {
			e.log.Warn("passing a signal on", "signal", sig, "err", err)
		}
	})
}

// ForwardReload passes a reload on to a service that is configured to get one.
func (e *Engine) ForwardReload() {
	if sig, ok := signalByName(e.conf().Process.Reload); ok {
		e.Forward(sig)
	}
}

// Kill makes a stop under way impatient: the service is killed now.
func (e *Engine) Kill() { e.kill() }
