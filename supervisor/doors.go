package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor/handoff"
)

// A Door is something that this program listens on: what for, where, and who
// answers there.
type Door struct {
	Name   string // control, page, metrics
	Addr   string
	Conf   string // what Serve depends on; a door is left alone when it is the same
	Listen func() (net.Listener, error)
	Serve  func(ctx context.Context, raw net.Listener) (*http.Server, net.Listener, error)
}

// Doors keeps them open, over changes of the configuration and into the
// next version of this program.
type Doors struct {
	ctx       context.Context
	log       *slog.Logger
	inherited *handoff.Bundle

	wg   sync.WaitGroup
	mu   sync.Mutex
	open []*opened
}

type opened struct {
	Door
	raw    net.Listener
	gate   *gate
	srv    *http.Server
	cancel context.CancelFunc
}

var _ Handover = (*Doors)(nil)

// NewDoors returns none yet. They are closed when ctx ends.
func NewDoors(ctx context.Context, inherited *handoff.Bundle, log *slog.Logger) *Doors {
	return &Doors{ctx: ctx, log: log, inherited: inherited}
}

// drainTime bounds waiting for requests under way. The page's streams end by
// themselves when upkeep hands over.
const drainTime = 3 * time.Second

// Set opens what is wanted and closes what isn't any more. A door that stays
// at its address is never closed for those who knock. What can't be opened
// leaves the one before as it is.
func (s *Doors) Set(doors []Door) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, old := range slices.Clone(s.open) {
		if !slices.ContainsFunc(doors, func(d Door) bool { return d.Name == old.Name }) {
			s.close(old)
		}
	}
	for _, d := range doors {
		if err := s.replace(d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Doors) replace(d Door) error {
	var old *opened
	if i := slices.IndexFunc(s.open, func(o *opened) bool { return o.Name == d.Name }); i >= 0 {
		old = s.open[i]
	}
	if old != nil && old.Addr == d.Addr && old.Conf == d.Conf {
		return nil
	}
	var raw net.Listener
	var err error
	if old != nil && old.Addr == d.Addr {
		raw, err = again(old.raw)
	} else if raw, err = s.take(d); raw == nil && err == nil {
		raw, err = d.Listen()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(fmt.Errorf("another program listens on %s: %w", d.Addr, err), "Choose another address in the configuration.")
	}
	if err != nil {
		return err
	}
	if err := s.start(d, raw); err != nil {
		keepName(raw)
		raw.Close()
		return err
	}
	if old != nil {
		if old.Addr == d.Addr {
			keepName(old.raw)
		}
		s.close(old)
	}
	return nil
}

// take returns the listener that the version before handed over, if it did.
func (s *Doors) take(d Door) (net.Listener, error) {
	f := s.inherited.Take(d.Name + " " + d.Addr)
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	return listener(f)
}

func listener(f *os.File) (net.Listener, error) {
	l, err := net.FileListener(f)
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true)
	}
	return l, err
}

// again returns a second listener for the same socket.
func again(l net.Listener) (net.Listener, error) {
	fl, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.ErrUnsupported
	}
	f, err := fl.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return listener(f)
}

// keepName keeps a unix socket's name when one of its listeners is closed.
func keepName(l net.Listener) {
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
}

func (s *Doors) start(d Door, raw net.Listener) error {
	ctx, cancel := context.WithCancel(s.ctx)
	g := newGate(raw)
	srv, l, err := d.Serve(ctx, g)
	if err != nil {
		cancel()
		return err
	}
	srv.ConnState = g.state
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	context.AfterFunc(ctx, func() { srv.Close() })
	s.open = append(s.open, &opened{d, raw, g, srv, cancel})
	s.wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("serving", "what", d.Name, "err", err)
		}
	})
	s.log.Info("listening", "what", d.Name, "address", d.Addr)
	return nil
}

// close lets the requests under way end, in the background.
func (s *Doors) close(o *opened) {
	s.open = slices.DeleteFunc(s.open, func(x *opened) bool { return x == o })
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, drainTime)
		defer cancel()
		_ = o.srv.Shutdown(ctx) // cut off at the end
		o.cancel()
	})
}

// Wait returns when nobody answers any more.
func (s *Doors) Wait() { s.wg.Wait() }

// Handoff lets the requests under way end and puts the listeners into the
// bundle. Whoever connects meanwhile waits in the kernel's queue.
func (s *Doors) Handoff(b *handoff.Bundle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		c, ok := o.raw.(syscall.Conn)
		if !ok {
			return fmt.Errorf("handing over %s: its listener has no descriptor", o.Name)
		}
		if err := b.Add(o.Name+" "+o.Addr, c); err != nil {
			return err
		}
	}
	// http.Server.Shutdown would cut off those whom it has just let in.
	for _, o := range s.open {
		o.gate.pause()
		o.srv.SetKeepAlivesEnabled(false)
	}
	timeout := time.After(drainTime)
	for _, o := range s.open {
		select {
		case <-o.gate.empty():
		case <-timeout:
			s.log.Warn("requests that take long are cut off", "what", o.Name)
			return nil
		}
	}
	return nil
}

// Resume listens on when nobody took over.
func (s *Doors) Resume(*handoff.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		o.srv.SetKeepAlivesEnabled(true)
		o.gate.resume()
	}
}
