package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

// handoffKey is the running process's name in a bundle.
const handoffKey = "process"

// handed is what the next program has to know of a process that stays our child.
type handed struct {
	Pid     int       `json:"pid"`
	Start   uint64    `json:"start"`
	Mark    string    `json:"mark"`
	Started time.Time `json:"started"`
	Adopted bool      `json:"adopted,omitempty"` // it is no child of ours
}

// Handoff puts a running process into the bundle, for the program that takes
// this one's place. Nothing is changed by it.
func (r *OS) Handoff(b *handoff.Bundle, p Process) error {
	op, ok := p.(*osProcess)
	if !ok {
		return errors.New("handing over the service: it is no process of this system")
	}
	mark, adopted := r.mark, op.mark != ""
	if adopted {
		mark = op.mark
	}
	d := describe(op.pid, mark)
	return b.Put(handoffKey, handed{Pid: d.Pid, Start: d.Start, Mark: d.Mark, Started: op.started, Adopted: adopted})
}

// BootID names this run of the machine, "" where that isn't known.
func BootID() string { return bootID() }

// Expect keeps the process of a bundle from being reaped as an orphan before it
// is attached. It is to be called before [NewOS].
func Expect(b *handoff.Bundle) {
	var h handed
	if b.Get(handoffKey, &h) && h.Pid > 1 {
		ours.Lock()
		ours.pids[h.Pid] = true
		ours.Unlock()
	}
}

// Attach goes on with the process of a bundle: it is this process's child
// already, since the program before ran in this very process. The spec says
// how to stop it.
func (r *OS) Attach(b *handoff.Bundle, s Spec) (Process, error) {
	var h handed
	if !b.Get(handoffKey, &h) || h.Pid <= 1 {
		return nil, errors.New("taking over the service: nothing was handed over")
	}
	if h.Adopted {
		return r.Adopt(b, s)
	}
	proc, err := os.FindProcess(h.Pid)
	if err != nil {
		return nil, fmt.Errorf("taking over the service: %w", err)
	}
	// One that has just ended is still there for us to wait for.
	if err := isChild(h.Pid); err != nil {
		return nil, fmt.Errorf("taking over the service: %w", err)
	}
	ours.Lock()
	ours.pids[h.Pid] = true
	ours.Unlock()
	r.mark = h.Mark
	r.last.Store(int64(h.Pid))
	p := &osProcess{runner: r, spec: s, done: make(chan struct{}), proc: proc, pid: h.Pid, started: h.Started}
	if err := r.write(describe(p.pid, r.mark)); err != nil {
		r.log.Error("the service's process can't be recorded; if upkeep is killed, the service has to be ended by hand", "err", err)
	}
	go p.wait()
	return p, nil
}

// Observe is a Process for a program on trial: it is not our child, and nothing
// may be done to it. Its end is the business of the program that we may replace.
func Observe(b *handoff.Bundle) (Process, error) {
	var h handed
	if !b.Get(handoffKey, &h) || h.Pid <= 1 {
		return nil, errors.New("observing the service: nothing was handed over")
	}
	if start, err := startTime(h.Pid); err == nil && start != h.Start {
		return nil, fmt.Errorf("observing the service: process %d is another one", h.Pid)
	}
	return &observed{h, make(chan struct{})}, nil
}

type observed struct {
	handed
	done chan struct{}
}

var errObserved = errors.New("on trial, nothing is done to the service")

func (p *observed) Pid() int                           { return p.handed.Pid }
func (p *observed) Started() time.Time                 { return p.handed.Started }
func (p *observed) Done() <-chan struct{}              { return p.done }
func (p *observed) Exit() Exit                         { return Exit{} }
func (p *observed) Signal(os.Signal) error             { return errObserved }
func (p *observed) Stop(context.Context) (bool, error) { return false, errObserved }
