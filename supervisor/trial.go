package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/process"
)

// A Successor starts other versions of upkeep.
type Successor interface {
	// Try starts one beside this one, with the bundle. It ends with ctx.
	Try(ctx context.Context, dir, file string, b *handoff.Bundle) (Tried, error)
	// StandBy starts this version once more, with the bundle, to look after the
	// one that is going to take its place, and completes the bundle for that.
	// Until then stop ends it.
	StandBy(ctx context.Context, dir string, b *handoff.Bundle) (stop func(), err error)
	// Replace starts one in the place of this one, in the same process. It
	// returns only when that failed.
	Replace(dir string, open *os.File, file string, b *handoff.Bundle) error
}

// Tried is a version of upkeep on trial.
type Tried interface {
	// Done is closed when it has ended, which it is not to do.
	Done() <-chan struct{}
	// How tells how it ended, with the end of what it said.
	How() string
	// Stop ends it and whatever it started.
	Stop()
}

// Keys of the bundle of a trial.
const (
	trialKey    = "trial"
	documentKey = "document"
)

// trialOrder tells a version on trial what to do.
type trialOrder struct {
	Socket string `json:"socket"` // where to answer as a control socket
}

// OnTrial reports whether this program was started to be tried, and where it
// has to answer.
func OnTrial(b *handoff.Bundle) (socket string, ok bool) {
	var o trialOrder
	ok = b.Get(trialKey, &o)
	return o.Socket, ok
}

// trial is what a version is tried with.
type trial struct {
	u      update
	dir    string
	socket string
	bundle *handoff.Bundle
	want   Status // what it has to say of the service
	wait   time.Duration
	ready  time.Duration
}

// newTrial puts together what a version on trial needs to be as this one is.
func (e *Engine) newTrial(u update) (*trial, error) {
	runner, ok := e.deps.Runner.(attacher)
	if !ok || e.proc == nil {
		return nil, fmt.Errorf("the service does not run")
	}
	t := &trial{u: u, dir: e.conf().State, socket: filepath.Join(e.conf().State, "trial.sock"), bundle: handoff.New(),
		want: e.status(), wait: e.conf().Self.Probation.D(), ready: max(trialReady, e.conf().Self.Probation.D())}
	doc, err := json.Marshal(e.doc)
	if err != nil {
		return nil, err
	}
	err = runner.Handoff(t.bundle, e.proc)
	for key, v := range map[string]any{trialKey: trialOrder{t.socket}, documentKey: json.RawMessage(doc), engineKey: e.handed()} {
		if err == nil {
			err = t.bundle.Put(key, v)
		}
	}
	if err == nil && e.deps.Output != nil {
		err = e.deps.Output.Show(t.bundle)
	}
	return t, err
}

// Variables for tests.
var (
	// trialReady is how long a version on trial may take at least until it answers.
	trialReady = 10 * time.Second
	// commandReady is the same in command.
	commandReady = 10 * time.Second
	// probeTime bounds one question.
	probeTime = 5 * time.Second
)

const (
	// trialPace is the time between two questions.
	trialPace = 200 * time.Millisecond
	// trialMisses is how many questions in a row may stay without answer.
	trialMisses = 3
)

// try is the probation of a new version of upkeep: it runs beside this one with
// the same configuration, state and knowledge of the service, and has to
// answer, and to say the same, until the time is over. Whatever it does,
// nothing happens to the service.
func (e *Engine) try(ctx context.Context, t *trial) outcome {
	defer t.bundle.Close()
	_ = os.Remove(t.socket)
	defer os.Remove(t.socket)
	tried, err := e.deps.Successor.Try(ctx, t.dir, t.u.ToFile, t.bundle)
	if err != nil {
		return outcome{event: evFail, reason: err.Error(), apply: blame}
	}
	defer tried.Stop()
	client := NewClient(t.socket)
	o := observe(ctx, observation{
		ended: tried.Done(), how: tried.How, when: "on trial", ready: t.ready, wait: t.wait,
		probe: func(ctx context.Context) error { return t.probe(ctx, client) },
	})
	switch {
	case o.stopped:
		return outcome{event: evStop}
	case o.reason != "":
		return outcome{event: evFail, reason: o.reason, apply: blame}
	}
	return outcome{event: evDone}
}

// An observation is of a version of upkeep that has to prove itself.
type observation struct {
	ended <-chan struct{} // it has, which it is not to do
	how   func() string   // it ended
	left  <-chan struct{} // it needs to prove nothing any more; nil = it can't
	ready time.Duration   // until it answers
	wait  time.Duration   // for which it has to answer then
	probe func(context.Context) error
	when  string // for reasons
}

// verdict is the end of an observation: well without a reason.
type verdict struct {
	reason  string
	stopped bool // by the context, or because it left
}

// observe asks a version again and again until it has proven itself, or failed.
func observe(ctx context.Context, o observation) verdict {
	fail := func(format string, args ...any) verdict {
		return verdict{reason: o.when + " it " + fmt.Sprintf(format, args...)}
	}
	start, ever, missed := time.Now(), false, 0
	for {
		select {
		case <-ctx.Done():
			return verdict{stopped: true}
		case <-o.left:
			return verdict{stopped: true}
		case <-o.ended:
			return fail("%s", o.how())
		case <-time.After(trialPace):
		}
		asking, cancel := context.WithTimeout(ctx, probeTime)
		answer := make(chan error, 1)
		go func() { answer <- o.probe(asking) }()
		var err error
		select {
		case err = <-answer:
		case <-o.left:
		case <-o.ended: // its socket may still be there, so the answer would be waited for
		}
		cancel()
		select {
		case <-o.left:
			return verdict{stopped: true}
		case <-o.ended:
			return fail("%s", o.how())
		default:
		}
		since := time.Since(start)
		switch {
		case ctx.Err() != nil:
			return verdict{stopped: true}
		case err == nil:
			missed = 0
			if !ever {
				// Its time counts from when it was there.
				ever, start, since = true, time.Now(), 0
			}
		case !ever && since >= o.ready:
			return fail("did not answer within %v: %v", o.ready, err)
		case ever:
			if missed++; missed >= trialMisses {
				return fail("stopped answering: %v", err)
			}
		}
		if ever && missed == 0 && since >= o.wait {
			return verdict{}
		}
	}
}

// probe asks a version on trial who it is and what it knows of the service.
func (t *trial) probe(ctx context.Context, c *Client) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	w := t.want
	switch {
	case s.Self.Version != t.u.To.Version || s.Self.GoVersion != t.u.To.GoVersion:
		return fmt.Errorf("it says that it is %s (%s)", s.Self.Version, s.Self.GoVersion)
	case s.Self.ConfigErr != "":
		return fmt.Errorf("it does not take the configuration: %s", s.Self.ConfigErr)
	case s.API != w.API:
		return fmt.Errorf("it answers in form %d and not %d", s.API, w.API)
	case !s.Service.Running || s.Service.Pid != w.Service.Pid || s.Service.Version != w.Service.Version || s.Service.Path != w.Service.Path:
		return fmt.Errorf("it says of the service that it is %s at %s, process %d", s.Service.Version, s.Service.Path, s.Service.Pid)
	}
	return nil
}

// RunTrial is Run of a version on trial: it knows what the running version
// knows, and changes nothing.
func (e *Engine) RunTrial(ctx context.Context) error {
	b := e.deps.Inherited
	var h handedEngine
	var doc document
	if !b.Get(engineKey, &h) || !b.Get(documentKey, &doc) {
		return fmt.Errorf("on trial: the running upkeep did not tell enough")
	}
	if h.State != e.conf().State {
		return fmt.Errorf("on trial: the configuration names the state folder %s, and the running upkeep uses %s", e.conf().State, h.State)
	}
	p, err := process.Observe(b)
	if err != nil {
		return err
	}
	e.doc, e.proc = doc, p
	if e.deps.Output != nil {
		e.deps.Output.Attach(b)
	}
	e.use(h.Current)
	e.takeFacts(h)
	e.replan()
	close(e.began)
	defer close(e.ended)
	for {
		select {
		case f := <-e.msgs:
			f()
		case <-ctx.Done():
			return nil
		}
	}
}
