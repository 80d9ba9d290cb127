package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/process"
)

// A Handover is a part of upkeep that lives on in its next version, such as a
// listener.
type Handover interface {
	// Handoff makes the part quiet and puts what the next version needs into
	// the bundle. It is bounded in time.
	Handoff(b *handoff.Bundle) error
	// Resume goes on when nobody took over; what was put in can be taken back.
	Resume(b *handoff.Bundle)
}

// Keys of the bundle.
const (
	engineKey = "engine"
	lockFile  = "lock"
)

// handedEngine is what the engine tells its next version; the rest is in the
// state file.
type handedEngine struct {
	State     string    `json:"state"` // folder
	Restarts  int       `json:"restarts"`
	Crashes   int       `json:"crashes"`
	LastExit  string    `json:"last_exit"`
	Health    Health    `json:"health"`
	Knowledge Knowledge `json:"knowledge"`
	Started   time.Time `json:"started"` // this process
	Current   string    `json:"current"` // the service's binary
}

func (e *Engine) handed() handedEngine {
	return handedEngine{e.conf().State, e.restarts, e.crashes, e.lastExit, e.health, e.knowledge, e.deps.Self.Started, e.current}
}

// attacher is a Runner whose processes live on in the next version.
type attacher interface {
	Handoff(b *handoff.Bundle, p process.Process) error
	Attach(b *handoff.Bundle, s process.Spec) (process.Process, error)
	// Adopt is Attach for a process that is no child of ours.
	Adopt(b *handoff.Bundle, s process.Spec) (process.Process, error)
}

// handOver replaces this program by its next version. It returns when that
// failed, and then everything goes on.
func (e *Engine) handOver(ctx context.Context, u update) outcome {
	b := handoff.New()
	defer b.Close()
	err := e.handParts(ctx, b, func() error { return e.exchange(ctx, b, u) })
	return outcome{event: evFail, reason: err.Error()}
}

// handParts makes everything around the engine quiet and puts it into the
// bundle for then, which returns only when nobody took over: it goes on then.
func (e *Engine) handParts(ctx context.Context, b *handoff.Bundle, then func() error) error {
	// Who watches is sent away, to connect again; everybody else is answered.
	if err := e.do(ctx, e.closeWatches); err != nil {
		return err
	}
	var err error
	n := 0
	for _, h := range e.deps.Handovers {
		n++
		if err = h.Handoff(b); err != nil {
			break
		}
	}
	if err == nil && e.deps.Output != nil {
		err = e.deps.Output.Handoff(b)
	}
	if err == nil {
		err = then()
	}
	if e.deps.Output != nil {
		e.deps.Output.Resume()
	}
	for _, h := range e.deps.Handovers[:n] {
		h.Resume(b)
	}
	return err
}

// exchange hands over what the engine has itself, has this version stand by in
// another process, and replaces it in this one.
func (e *Engine) exchange(ctx context.Context, b *handoff.Bundle, u update) error {
	onEngine := func(f func() error) (err error) {
		if errDo := e.do(ctx, func() { err = f() }); errDo != nil {
			return errDo
		}
		return err
	}
	var proc process.Process
	defer func() { _ = e.do(context.Background(), e.resumeParts) }() // when the engine has ended, nothing is to be resumed
	err := onEngine(func() error {
		proc = e.proc
		return e.prepare(b, u)
	})
	if err != nil {
		return err
	}
	stop, err := e.deps.Successor.StandBy(ctx, e.conf().State, b)
	if err != nil {
		return err
	}
	defer stop()
	// From here on a signal to end ends this process, and the one that stands by
	// does what it was for.
	defer e.deps.Signals.Hold()()
	return onEngine(func() error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case e.stopping || e.runCtx.Err() != nil:
			return errors.New("upkeep was stopped")
		case e.proc != proc:
			return errors.New("the service ended in the middle of it")
		}
		return e.deps.Successor.Replace(e.conf().State, u.open, u.ToFile, b)
	})
}

// prepare puts what the engine has itself into the bundle.
func (e *Engine) prepare(b *handoff.Bundle, u update) error {
	runner, ok := e.deps.Runner.(attacher)
	switch {
	case !ok:
		return errors.New("the service can't be handed over")
	case e.proc == nil:
		return errors.New("the service does not run")
	case e.lock == nil:
		return errors.New("the state folder is not ours")
	}
	if e.dirty {
		_ = e.save() // save reports
	}
	cfg := e.conf()
	order := standbyOrder{
		Pid: os.Getpid(), Socket: orText(cfg.Socket, ControlSocket(ControlConfig{}, cfg.State)), To: u.To, Path: cfg.Service.Path, API: APIVersion,
		Ready: max(commandReady, cfg.Self.Probation.D()), Wait: cfg.Self.Probation.D(),
	}
	return errors.Join(runner.Handoff(b, e.proc), b.Put(engineKey, e.handed()), b.Put(standbyKey, order), b.Add(lockFile, e.lock.Conn()), e.handOff(b))
}

// handOff puts what the engine's own parts keep into the bundle.
func (e *Engine) handOff(b *handoff.Bundle) error {
	return errors.Join(e.handOffCompany(b), e.handOffFront(b), e.listening.keeper.Handoff(b))
}

// resumeParts goes on with them when nobody took over.
func (e *Engine) resumeParts() { e.listening.keeper.Resume() }

// takeOver goes on where the version before stopped: with its process, which is
// our child unless this version stood by. It reports whether there was anything to go on with.
func (e *Engine) takeOver(b *handoff.Bundle) (bool, error) {
	var h handedEngine
	runner, ok := e.deps.Runner.(attacher)
	if !ok || !b.Get(engineKey, &h) {
		return false, nil
	}
	e.listening.keeper.Adopt(b)
	spec := e.processSpec(e.current)
	c := e.takeOverCompany(b, &spec)
	attach := runner.Attach
	if e.standIn.Reason != "" {
		attach = runner.Adopt
	}
	p, err := attach(b, spec)
	if err != nil {
		c.end(e)
		return false, fmt.Errorf("the version before handed the service over, but: %w", err)
	}
	if e.deps.Output != nil {
		e.deps.Output.Attach(b)
	}
	e.takeFacts(h)
	c.began(p)
	e.companies.Store(p, c)
	e.took(p)
	e.health = h.Health
	e.taken = true
	return true, nil
}

func (e *Engine) takeFacts(h handedEngine) {
	e.restarts, e.crashes, e.lastExit, e.health, e.knowledge = h.Restarts, h.Crashes, h.LastExit, h.Health, h.Knowledge
	e.deps.Self.Started = h.Started
	if h.Current != e.current {
		e.use(h.Current)
	}
}

// closeWatches ends all streams of status.
func (e *Engine) closeWatches() {
	e.subsMu.Lock()
	defer e.subsMu.Unlock()
	for c := range e.subs {
		close(c)
		delete(e.subs, c)
	}
}
