package handoff

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"time"
)

// Signals are the ones that this program handles. While another program takes
// its place none that asks it to end is lost: what has arrived by [Signals.Hold]
// is handled before, and what arrives later ends the process, as it would do
// with a program that doesn't handle signals yet. No Go program can do better:
// its runtime lets such signals in before any code of ours runs. Who stands by
// has to see the end and do what was asked for.
type Signals struct {
	end   []os.Signal // to end
	other []os.Signal
	c     chan os.Signal
	mark  chan struct{}
}

// marker is sent behind all signals that have arrived.
type marker struct{}

func (marker) Signal()        {}
func (marker) String() string { return "marker" }

// Catch begins to catch signals: those that ask the program to end, and others.
func Catch(end, other []os.Signal) *Signals {
	s := &Signals{end: slices.Clone(end), other: slices.Clone(other), c: make(chan os.Signal, 16), mark: make(chan struct{}, 1)}
	s.catch()
	return s
}

func (s *Signals) catch() {
	signal.Reset(s.end...) // nobody else in this program does
	signal.Notify(s.c, append(s.end[:len(s.end):len(s.end)], s.other...)...)
}

// Each calls f for each signal, until ctx ends or Stop. What arrives after the
// end of ctx waits for the next Each.
func (s *Signals) Each(ctx context.Context, f func(os.Signal)) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig, open := <-s.c:
			switch {
			case !open:
				return
			case sig == (marker{}):
				s.mark <- struct{}{}
			default:
				f(sig)
			}
		}
	}
}

// Stop catches no more signals.
func (s *Signals) Stop() {
	signal.Stop(s.c)
	close(s.c)
}

// flushTime bounds waiting for the signals that have arrived to be handled.
const flushTime = 3 * time.Second

// Hold returns when the signals that have arrived are handled. Until release,
// one that asks to end does so at once, and others are ignored. It must not be
// called from where signals are handled. A nil one holds nothing.
func (s *Signals) Hold() (release func()) {
	if s == nil {
		return func() {}
	}
	if len(s.other) > 0 {
		signal.Ignore(s.other...)
	}
	signal.Stop(s.c) // what has arrived is in the channel then
	timeout := time.NewTimer(flushTime)
	defer timeout.Stop()
	select {
	case s.c <- marker{}:
		select {
		case <-s.mark:
		case <-timeout.C:
		}
	case <-timeout.C:
	}
	restore := byDefault(s.end)
	return func() {
		restore()
		s.catch()
	}
}
