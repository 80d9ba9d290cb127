package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// helper is the process that forwards.
type helper struct {
	gate     *gate
	log      *slog.Logger
	listen   []Listen
	forwards []*forwarder
}

func (h *helper) closeIdle() {
	for _, f := range h.forwards {
		f.closeIdle()
	}
}

// probeEvery is the pace at which a backend is tried.
const probeEvery = 20 * time.Millisecond

// serve does what the supervisor says until the connection to it ends, which
// is the helper's end too. take returns the i-th listener.
func serve(control io.ReadWriter, take func(i int) (net.Listener, error), log *slog.Logger) error {
	in := newLines(control)
	var first request
	if err := in.next(&first); err != nil {
		return fmt.Errorf("the proxy was not told what to do: %w", err)
	}
	h, err := begin(first, take, log)
	answer := reply{V: version, ID: first.ID}
	if err != nil {
		answer.Err = err.Error()
	}
	if errW := writeLine(control, answer); err != nil || errW != nil {
		return errors.Join(err, errW)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex // one reply at a time
	for {
		var r request
		err := in.next(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the proxy can't read its orders: %w", err)
		}
		// A wait must not keep other orders from being followed.
		go func() {
			a := reply{V: version, ID: r.ID}
			if err := h.do(ctx, r, &a); err != nil {
				a.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			_ = writeLine(control, a) // its end ends the loop above
		}()
	}
}

// begin starts forwarding; everything is held until there are backends.
func begin(r request, take func(i int) (net.Listener, error), log *slog.Logger) (*helper, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Verb != verbListen {
		return nil, fmt.Errorf("the proxy's first order is %q", r.Verb)
	}
	h := &helper{gate: newGate(r.MaxWait), log: log, listen: r.Listen}
	for i, l := range r.Listen {
		s, err := take(i)
		if err != nil {
			return nil, fmt.Errorf("the proxy's listener %s: %w", l.Name, err)
		}
		f := &forwarder{name: l.Name, gate: h.gate, log: log}
		h.forwards = append(h.forwards, f)
		go func() {
			if err := f.serve(s, l.Mode); err != nil {
				log.Error("the proxy's listener ended", "name", l.Name, "err", err)
			}
		}()
	}
	return h, nil
}

func (h *helper) do(ctx context.Context, r request, a *reply) error {
	if err := r.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	switch r.Verb {
	case verbHold:
		h.gate.hold()
		a.Left = h.gate.drain(ctx)
		h.closeIdle()
	case verbDrain:
		a.Left = h.gate.drain(ctx)
		h.closeIdle()
	case verbSwitch:
		if err := h.probe(ctx, r.Backends); err != nil {
			return err
		}
		h.gate.use(r.Backends)
	case verbRelease:
		h.gate.release()
	case verbStats:
	default:
		return fmt.Errorf("this proxy does not know the order %q", r.Verb)
	}
	a.Stats.Busy, a.Stats.Waiting, a.Stats.Held = h.gate.stats()
	return nil
}

// probe waits until every backend accepts a connection.
func (h *helper) probe(ctx context.Context, b Backends) error {
	for _, l := range h.listen {
		addr := b[l.Name]
		if addr == "" {
			return fmt.Errorf("there is no address of the service for %q", l.Name)
		}
		for {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-time.After(probeEvery):
			case <-ctx.Done():
				return fmt.Errorf("the service does not listen on %s for %q: %w", addr, l.Name, err)
			}
		}
	}
	return nil
}
