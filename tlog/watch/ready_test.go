package watch

import (
	"context"
	"errors"
	"testing"
	"time"

	"example.org/upkeep/tlog/index"
)

// TestReady: a new index is of use when each module was polled, and gets older
// while the proxy tells nothing.
func TestReady(t *testing.T) {
	w := newWorld(t, "example.org/a", "example.org/b", "example.org/unknown")
	w.publish("example.org/a", "v1.0.0")
	w.publish("example.org/b", "v1.0.0")
	held := make(chan struct{})
	p := &heldProxy{world: w, path: "example.org/b", held: held}
	w.cfg.Proxy = p
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, w.cfg) }()
	// wait waits for a state of the index.
	wait := func(what string, is func(h index.Head, a, b bool) bool) index.Head {
		t.Helper()
		for ; ; time.Sleep(time.Millisecond) {
			h, err := w.store.Head()
			_, a, err2 := w.store.Module("example.org/a")
			_, b, err3 := w.store.Module("example.org/b")
			if err := errors.Join(err, err2, err3, ctx.Err()); err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			if is(h, a, b) {
				return h
			}
			if !b && h.Size != 0 {
				t.Fatalf("index says that it has %d records, and not each module was polled", h.Size)
			}
		}
	}
	wait("the first module", func(_ index.Head, a, b bool) bool { return a && !b })
	close(held)
	first := wait("all modules", func(h index.Head, _, b bool) bool { return b && h.Size == 2 })
	if first.Accepted.IsZero() {
		t.Error("the index does not say when it was made")
	}

	// The proxy goes away, the log does not: after each has been asked often the
	// index is as old as the last answer of the proxy.
	w.mu.Lock()
	w.fail = errors.New("proxy is away")
	w.mu.Unlock()
	gone := time.Now()
	w.publish("example.org/c", "v1.0.0") // a new tree head
	p.more(ctx, t, 6)
	h, err := w.store.Head()
	if err != nil || h.Accepted.After(gone) {
		t.Errorf("the proxy told nothing since %v, and the index says that it is of %v (%v)", gone, h.Accepted, err)
	}
	w.mu.Lock()
	w.fail = nil
	w.mu.Unlock()
	wait("the newest tree head", func(h index.Head, _, _ bool) bool { return h.Size == 3 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A heldProxy holds back the answers about one module.
type heldProxy struct {
	*world
	path string
	held chan struct{}
}

func (p *heldProxy) List(ctx context.Context, path string) ([]string, error) {
	if path == p.path {
		select {
		case <-p.held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.world.List(ctx, path)
}

// more waits until the proxy was asked so many times more.
func (p *heldProxy) more(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	p.mu.Lock()
	want := p.lists + n
	p.mu.Unlock()
	for ; ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		enough := p.lists >= want
		p.mu.Unlock()
		if enough {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the proxy is not asked any more")
		}
	}
}
