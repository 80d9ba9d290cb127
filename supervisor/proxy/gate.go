package proxy

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxWaiting bounds what waits while new requests are held.
const maxWaiting = 4096

var (
	errFull    = errors.New("too many requests wait for the service's new version")
	errTooLong = errors.New("the service's new version took too long")
)

// A run is one set of backends and what is under way with it.
type run struct {
	backends Backends
	busy     int
	idle     chan struct{} // closed and replaced whenever busy becomes 0
}

// gate lets requests through to the run in force, or holds them.
type gate struct {
	maxWait time.Duration // how long one request is held

	mu      sync.Mutex
	now     *run
	old     map[*run]bool // former runs with something under way
	held    chan struct{} // non-nil while held, closed by release
	waiting int
}

func newGate(maxWait time.Duration) *gate {
	// Until there is a service, everything waits.
	return &gate{maxWait: maxWait, now: newRun(nil), old: map[*run]bool{}, held: make(chan struct{})}
}

func newRun(b Backends) *run { return &run{backends: b, idle: make(chan struct{})} }

// enter returns the run that a request goes to; leave has to be called once
// when it is done.
func (g *gate) enter(ctx context.Context) (*run, error) {
	var limit <-chan time.Time
	g.mu.Lock()
	for g.held != nil {
		if limit == nil {
			if g.waiting >= maxWaiting {
				g.mu.Unlock()
				return nil, errFull
			}
			t := time.NewTimer(g.maxWait)
			defer t.Stop()
			limit = t.C
			g.waiting++
			defer func() {
				g.mu.Lock()
				g.waiting--
				g.mu.Unlock()
			}()
		}
		held := g.held
		g.mu.Unlock()
		select {
		case <-held:
		case <-limit:
			return nil, errTooLong
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		g.mu.Lock()
	}
	defer g.mu.Unlock()
	g.now.busy++
	return g.now, nil
}

func (g *gate) leave(r *run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.busy--
	if r.busy == 0 {
		close(r.idle)
		r.idle = make(chan struct{})
		delete(g.old, r)
	}
}

// hold lets nothing new through.
func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
}

// release lets through what waits.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil && g.now.backends != nil {
		close(g.held)
		g.held = nil
	}
}

// use makes other backends those in force, for what is let through from now on.
func (g *gate) use(b Backends) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now.busy > 0 {
		g.old[g.now] = true
	}
	g.now = newRun(b)
}

// drain waits until nothing is under way: with any run while held, otherwise
// with former ones. It returns how much still is when ctx ends.
func (g *gate) drain(ctx context.Context) int {
	for {
		g.mu.Lock()
		left := 0
		var wait <-chan struct{}
		look := func(r *run) {
			if r.busy > 0 {
				left += r.busy
				wait = r.idle
			}
		}
		for r := range g.old {
			look(r)
		}
		if g.held != nil {
			look(g.now)
		}
		g.mu.Unlock()
		if left == 0 {
			return 0
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return left
		}
	}
}

// stats are for people.
func (g *gate) stats() (busy, waiting int, held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	busy = g.now.busy
	for r := range g.old {
		busy += r.busy
	}
	return busy, g.waiting, g.held != nil
}
