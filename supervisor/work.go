package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/notify"
	"example.org/upkeep/supervisor/process"
)

// enter begins the work of a state.
func (e *Engine) enter(u *update, s State) {
	c := *u // for the work, which has a goroutine of its own
	switch s {
	case StateIdle:
		if e.stopping {
			e.stopService()
			return
		}
		e.replan()
	case StateScheduled:
		// replan has set the timer.
	case StateFetching:
		f := fetching{u: c, old: e.current, spec: e.specFor(c.To), place: e.place, list: &e.doc.Installed, keepAs: e.fileFor(c.From)}
		if have := e.doc.binary(c.ToFile); have != nil && have.Pair == c.To {
			f.have = new(*have)
		}
		if kept := e.doc.binary(e.current); kept != nil {
			f.kept = new(*kept)
		}
		e.start(u, func(ctx context.Context) outcome { return e.fetch(ctx, f) })
	case StateVerified:
		e.start(u, func(ctx context.Context) outcome { return e.before(ctx, c) })
	case StateStopping:
		proc := e.proc
		e.start(u, func(context.Context) outcome { return e.stopOld(proc) })
	case StateSwitching:
		e.start(u, func(context.Context) outcome {
			if err := e.place.Switch(c.ToFile); err != nil {
				return outcome{event: evFail, reason: err.Error()}
			}
			return outcome{event: evDone}
		})
	case StateStarting:
		e.start(u, func(context.Context) outcome { return e.startNew(c) })
	case StateProbation:
		proc, stopped := e.proc, u.Stopped
		if !stopped.IsZero() && proc != nil {
			e.metrics.downtime.Observe(max(0, proc.Started().Sub(stopped).Seconds()))
		}
		u.Deadline = e.now().Add(e.conf().Health.Probation.D())
		checker, cfg := e.checker(), e.conf().Health
		e.start(u, func(ctx context.Context) outcome { return e.probation(ctx, checker, cfg, proc) })
	case StateCommitted:
		e.listening.ready()
		e.record(e.result(u, ResultInstalled))
		e.prune()
		e.start(u, func(ctx context.Context) outcome {
			e.hook(ctx, e.conf().Hooks.After, "after_update", c)
			return outcome{event: evDone}
		})
	case StateRollingBack:
		proc, start := e.proc, !e.stopping
		e.start(u, func(context.Context) outcome { return e.rollBack(proc, c, start) })
	case StateRolledBack:
		e.record(e.result(u, ResultRolledBack))
		e.start(u, func(ctx context.Context) outcome {
			e.hook(ctx, e.conf().Hooks.Rollback, "on_rollback", c)
			return outcome{event: evDone}
		})
	}
}

// fetching is what the work of StateFetching goes by.
type fetching struct {
	u    update
	old  string     // binary in use
	spec spec.Spec  // of the new one
	have *installed // the new one, when it was installed before
	kept *installed // the old one, when its sum is known

	place  install.Place
	keepAs string      // name for the old one, when it has none of its own
	list   *binaryList // for the engine's goroutine only
	own    string      // upkeep's own binary: its name may stand for another one already
}

// fetch obtains the binary, if it isn't at hand, and makes it ready to run.
func (e *Engine) fetch(ctx context.Context, f fetching) outcome {
	u, have := f.u, f.have
	fail := func(err error) outcome { return outcome{event: evFail, err: err} }
	// The binary in use has to stay at hand under a name of its own.
	kept, err := f.place.Keep(filepath.Base(f.keepAs))
	if err != nil {
		return fail(err)
	}
	if f.own != "" && !f.place.Uses(f.own) {
		kept = f.own
	}
	var fromSum string
	var fromSize int64
	if f.kept != nil && f.kept.File == kept {
		fromSum, fromSize = f.kept.Sum, f.kept.Size // checked when somebody goes back to it
	} else if fromSum, fromSize, err = install.Sum(kept); err != nil {
		return fail(err)
	}
	keep := func(n *update) {
		n.FromFile, n.FromSum = kept, fromSum
		if f.list.find(kept) == nil {
			f.list.remember(installed{Pair: u.From, File: kept, Sum: fromSum, Size: fromSize, Since: fileTime(kept)})
		}
	}
	if err := e.stillWanted(ctx, u, f.spec.Module); err != nil {
		return fail(err)
	}
	// Whether it is still what was verified is seen in the next state, of the
	// opened file.
	if have != nil && sizeOf(have.File) == have.Size {
		b := *have
		return outcome{event: evDone, apply: func(n *update) {
			keep(n)
			n.ToSum, n.Size, n.Builder, n.LogIndex, n.LogSize, n.Agreed = b.Sum, b.Size, b.Builder, b.LogIndex, b.LogSize, b.Agreed
		}}
	}
	if u.Kind == kindRollback || u.Kind == kindSelfRollback {
		return fail(fmt.Errorf("%s is no longer there as it was installed, so it can't be gone back to", u.ToFile))
	}
	say := func(p Progress) { e.post(func() { e.say(u.ID, p) }) }
	b, err := e.deps.Binaries.Lookup(ctx, f.spec, say)
	if err != nil {
		return fail(err)
	}
	if err := f.place.Room(b.Size); err != nil {
		return fail(err)
	}
	if err := e.deps.Binaries.Download(ctx, b, u.ToFile, say); err != nil {
		return fail(err)
	}
	if err := install.LikeOld(u.ToFile, f.old); err != nil {
		return fail(err)
	}
	return outcome{event: evDone, apply: func(n *update) {
		keep(n)
		n.ToSum, n.Size, n.Builder, n.LogIndex, n.LogSize, n.Agreed = b.Sum, b.Size, b.Builder, b.LogIndex, b.LogSize, b.Agreed
		f.list.remember(installed{Pair: u.To, File: u.ToFile, Sum: b.Sum, Size: b.Size,
			Builder: b.Builder, LogIndex: b.LogIndex, LogSize: b.LogSize, Agreed: b.Agreed})
		if what := install.Privileges(f.old); what != "" {
			e.addEvent(Event{Kind: "file_privileges", Version: u.To.Version, Text: fmt.Sprintf("the old binary has %s, which the new one is not given; "+
				"use process.user and process.ambient_capabilities", what)})
		}
	}}
}

// withdrawer is discovery that can tell at once what an author took back.
type withdrawer interface {
	Withdrawn(ctx context.Context, module, version string) (why string, err error)
}

var errRetracted = errors.New("retracted by its author")

// stillWanted asks whether a version was retracted since it was learned of. One
// of which that can't be known isn't installed by itself.
func (e *Engine) stillWanted(ctx context.Context, u update, module string) error {
	w, ok := e.deps.Versions.(withdrawer)
	if !ok || u.Kind == kindRollback || u.Kind == kindSelfRollback || u.To.Version == u.From.Version {
		return nil
	}
	why, err := w.Withdrawn(ctx, module, u.To.Version)
	var verify *VerificationError
	switch {
	case why != "":
		return &PermanentError{fmt.Errorf("%s was %w: %s", u.To.Version, errRetracted, why)}
	case errors.As(err, &verify) || err != nil && !u.Asked:
		return fmt.Errorf("it can't be known whether %s was retracted by its author: %w", u.To.Version, err)
	}
	return nil
}

func sizeOf(file string) int64 {
	fi, err := os.Stat(file)
	if err != nil {
		return -1
	}
	return fi.Size()
}

func fileTime(file string) time.Time {
	fi, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

// specFor is the build of a version of the service for this machine.
func (e *Engine) specFor(p Pair) spec.Spec {
	s := e.info.Spec
	s.Version, s.GoVersion, s.Stripped = p.Version, p.GoVersion, e.conf().Service.Stripped
	return s
}

// fileFor is the name of a version's binary.
func (e *Engine) fileFor(p Pair) string {
	return fileFor(e.place, p, e.conf().Service.Stripped)
}

func fileFor(place install.Place, p Pair, stripped bool) string {
	base := filepath.Base(place.Path)
	exe := filepath.Ext(base)
	if !strings.EqualFold(exe, ".exe") {
		exe = ""
	}
	name := strings.TrimSuffix(base, exe) + "-" + p.Version + "-" + p.GoVersion
	if stripped {
		name += "-stripped"
	}
	name = strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '.' || r == '-' || r == '+' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '_' // "(devel)"
	}, name)
	return place.File(name + exe)
}

// notNow is the exit status of a before-update hook that wants to be asked later.
const notNow = 75 // EX_TEMPFAIL

var errNotNow = errors.New("the before_update hook said not now")

// before runs the hook that can still prevent the update, and then opens the
// binary that is going to be started and verifies what it has opened: from here
// on the file's name isn't looked up any more.
func (e *Engine) before(ctx context.Context, u update) outcome {
	if out := e.askHook(ctx, u); out.event != evDone {
		return out
	}
	f, err := os.Open(u.ToFile)
	if err != nil {
		return outcome{event: evFail, err: err}
	}
	if err := install.CheckOpen(f, u.ToSum); err != nil {
		f.Close()
		// Forgotten, so that the next try downloads it again.
		forget := func(n *update) { e.doc.Installed.forget(n.ToFile) }
		return outcome{event: evFail, err: &VerificationError{kindChanged, err}, apply: forget}
	}
	return outcome{event: evDone, apply: func(n *update) { n.open = f }}
}

// kindChanged is the kind of verification failures of files on this machine.
const kindChanged = "binary_changed"

func (e *Engine) askHook(ctx context.Context, u update) outcome {
	argv := e.conf().Hooks.Before
	if len(argv) == 0 || e.deps.Commands == nil {
		return outcome{event: evDone}
	}
	code, out, err := e.deps.Commands(ctx, argv, hookEnv("before_update", u), e.conf().Hooks.Timeout.D())
	switch {
	case err != nil:
		return outcome{event: evFail, err: fmt.Errorf("before_update hook: %w", err)}
	case code == notNow:
		return outcome{event: evFail, err: errNotNow}
	case code != 0:
		return outcome{event: evFail, err: fmt.Errorf("before_update hook %s", exited(code, out))}
	}
	return outcome{event: evDone}
}

// hook runs a hook that can't prevent anything.
func (e *Engine) hook(ctx context.Context, argv []string, name string, u update) {
	if len(argv) == 0 || e.deps.Commands == nil {
		return
	}
	code, out, err := e.deps.Commands(ctx, argv, hookEnv(name, u), e.conf().Hooks.Timeout.D())
	if err == nil && code == 0 {
		return
	}
	text := name + " hook " + exited(code, out)
	if err != nil {
		text = fmt.Sprintf("%s hook: %v", name, err)
	}
	e.post(func() { e.addEvent(Event{Kind: "hook_failed", Version: u.To.Version, Text: text}) })
}

func hookEnv(name string, u update) []string {
	return []string{
		"UPKEEP_HOOK=" + name, "UPKEEP_ID=" + u.ID, "UPKEEP_KIND=" + u.Kind, "UPKEEP_BY=" + u.By,
		"UPKEEP_FROM_VERSION=" + u.From.Version, "UPKEEP_FROM_GO=" + u.From.GoVersion, "UPKEEP_FROM_FILE=" + u.FromFile,
		"UPKEEP_TO_VERSION=" + u.To.Version, "UPKEEP_TO_GO=" + u.To.GoVersion, "UPKEEP_TO_FILE=" + u.ToFile,
		"UPKEEP_SUM=" + u.ToSum, "UPKEEP_LOG_INDEX=" + strconv.FormatInt(u.LogIndex, 10), "UPKEEP_REASON=" + u.Reason,
	}
}

// stopOld ends the old process. It isn't cancelled, only made impatient: an
// event that overtakes it wants the process gone too.
func (e *Engine) stopOld(proc process.Process) outcome {
	out := outcome{event: evDone}
	if proc == nil {
		out.apply = func(n *update) { n.Stopped = e.now() }
		return out
	}
	e.leaving(proc)
	if e.front.overlaps() {
		e.front.leave(proc)
		out.apply = func(*update) { e.proc = nil }
		return out
	}
	e.front.hold(e.conf().Proxy.Drain.D())
	killed, err := proc.Stop(e.killCtx)
	if err != nil {
		return outcome{event: evFail, reason: err.Error()}
	}
	out.apply = func(n *update) {
		e.proc = nil
		n.Stopped = e.now()
		if killed {
			e.addEvent(Event{Kind: "killed", Version: n.From.Version,
				Text: fmt.Sprintf("the service did not end within %v of the stop signal and was killed", e.conf().Process.Grace)})
		}
	}
	return out
}

func (e *Engine) startNew(u update) outcome {
	spec := e.processSpec(u.ToFile)
	spec.Open = u.open
	proc, err := e.startProcess(spec)
	if err != nil {
		return outcome{event: evFail, reason: err.Error(), apply: blame}
	}
	return outcome{event: evDone, apply: func(n *update) {
		n.Running = proc.Started()
		e.use(u.ToFile)
		e.took(proc)
	}}
}

// processSpec says how to run a binary.
func (e *Engine) processSpec(file string) process.Spec {
	sig, _ := signalByName(e.conf().Process.StopSignal)
	s := process.Spec{
		File: file, Name: e.conf().Service.Path, Args: e.conf().Service.Args,
		Env: append(serviceEnv(os.Environ(), e.conf().Process.ClearEnv), e.conf().Process.Env...), Dir: e.conf().Process.Dir,
		Stop: sig, Grace: e.conf().Process.Grace.D(), Cred: e.conf().cred,
	}
	if e.conf().Process.Output == "keep" {
		s.Output = e.deps.Output
	} else if journal := os.Getenv(journalStream); journal != "" {
		s.Env = append(s.Env, journalStream+"="+journal) // it writes to the journal itself
	}
	for _, l := range e.conf().Process.Limits {
		if r, err := process.ParseRlimit(l); err == nil { // else said by CheckStart
			s.Rlimits = append(s.Rlimits, r)
		}
	}
	e.listening.apply(&s)
	return s
}

// journalStream is the variable that names the journal's stream, which a program
// compares with its own output.
const journalStream = "JOURNAL_STREAM"

// serviceEnv is the part of our own environment that the service gets. What
// systemd tells its main process isn't meant for the service.
func serviceEnv(env []string, clear bool) []string {
	return slices.DeleteFunc(notify.Strip(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case journalStream, "UPKEEP_MARK":
			return true
		case "PATH", "HOME", "LANG", "TZ":
			return false
		}
		return clear && !strings.HasPrefix(name, "LC_")
	})
}

// rollBack puts the previous binary back in use and starts it. It isn't
// cancelled. Its three steps are independent: a link that can't be put back
// must not keep the old version from running.
func (e *Engine) rollBack(proc process.Process, u update, start bool) outcome {
	var errs []error
	beside := e.front.former() // the old process, which still has the traffic
	if proc != nil {
		if beside == nil {
			e.front.hold(e.conf().Proxy.Drain.D())
		}
		if _, err := proc.Stop(e.killCtx); err != nil {
			errs = append(errs, err)
		}
	}
	stuck := ""
	if err := e.place.Switch(u.FromFile); err != nil {
		errs = append(errs, err)
		stuck = u.FromFile
	}
	if beside != nil && !start {
		if _, err := beside.Stop(e.killCtx); err != nil {
			errs = append(errs, err)
		}
	}
	if beside != nil && start {
		return outcome{event: rolledBackEvent(errs), reason: joined(errs), apply: func(*update) {
			e.doc.Repair = stuck
			e.use(u.FromFile)
			e.goOnWith(beside)
		}}
	}
	if !start {
		return outcome{event: rolledBackEvent(errs), reason: joined(errs), apply: func(*update) {
			e.proc, e.doc.Repair = nil, stuck
			e.use(u.FromFile)
		}}
	}
	old, err := e.startProcess(e.processSpec(u.FromFile))
	if err != nil {
		errs = append(errs, err)
	}
	return outcome{event: rolledBackEvent(errs), reason: joined(errs), apply: func(*update) {
		e.proc, e.doc.Repair = nil, stuck
		e.use(u.FromFile)
		if err != nil {
			e.unstarted(err)
			e.addEvent(Event{Kind: "service_down", Text: fmt.Sprintf("the previous version can't be started: %v", err)})
			e.notStarted()
			return
		}
		e.took(old)
		if len(errs) > 0 {
			e.addEvent(Event{Kind: "rollback_incomplete", Text: "the previous version runs, but: " + joined(errs)})
		}
	}}
}

// goOnWith makes a process that never ended the service again.
func (e *Engine) goOnWith(p process.Process) {
	e.proc = p
	e.health = Health{Configured: e.health.Configured}
	e.metrics.up.Set(1)
	select {
	case <-p.Done():
		go e.post(func() { e.exited(p) }) // it ended while nobody looked
	default:
	}
	e.changed()
}

func rolledBackEvent(errs []error) event {
	if len(errs) > 0 {
		return evFail
	}
	return evDone
}

func joined(errs []error) string {
	if len(errs) == 0 {
		return ""
	}
	return errors.Join(errs...).Error()
}
