//go:build unix

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

// Options are how the supervisor has connections forwarded.
type Options struct {
	Program string   // this program's file, which calls Helper first
	Listen  []Listen // where
	// Files are listening sockets that are there already, by name; the others
	// are opened. The proxy takes them.
	Files map[string]*os.File
	// Hold is how long a request waits at most.
	Hold time.Duration
	Log  *slog.Logger
}

// A Proxy is the supervisor's end of the helper.
type Proxy struct {
	opt     Options
	sockets []*os.File // of opt.Listen, kept for another helper

	mu       sync.Mutex
	link     *link
	backends Backends
	held     bool
	closed   bool
}

// link is the connection to one helper.
type link struct {
	conn *net.UnixConn
	pid  int
	gone chan struct{} // closed when the helper's end of the connection is

	mu   sync.Mutex
	next int64
	wait map[int64]chan reply
}

// startTime bounds the helper's first answer; answerTime what it takes over
// the time that an order has.
const (
	startTime  = 20 * time.Second
	answerTime = 10 * time.Second
)

var errGone = errors.New("the proxy's helper process has ended")

// Start opens the listeners and starts the helper. Everything is held until
// the first Switch and Release.
func Start(ctx context.Context, opt Options) (*Proxy, error) {
	if err := Check(opt.Listen); err != nil {
		return nil, err
	}
	p := &Proxy{opt: opt, held: true}
	for _, l := range opt.Listen {
		f := opt.Files[l.Name]
		if f == nil {
			s, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Address)
			if err != nil {
				p.closeSockets()
				return nil, fmt.Errorf("listening for %q: %w", l.Name, err)
			}
			f, err = s.(*net.TCPListener).File()
			s.Close()
			if err != nil {
				p.closeSockets()
				return nil, fmt.Errorf("listening for %q: %w", l.Name, err)
			}
		}
		p.sockets = append(p.sockets, f)
	}
	if err := p.launch(ctx); err != nil {
		p.closeSockets()
		return nil, err
	}
	return p, nil
}

// launch starts a helper and puts it into the state that is wanted.
func (p *Proxy) launch(ctx context.Context) error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("starting the proxy's helper: %w", err)
	}
	syscall.CloseOnExec(pair[0])
	syscall.CloseOnExec(pair[1])
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return fmt.Errorf("starting the proxy's helper: %w", err)
	}
	// It stays in the supervisor's process group: so it is no orphan of the service.
	cmd := exec.Command(p.opt.Program)
	cmd.Args = []string{helperName}
	cmd.Dir = "/"
	cmd.Env = []string{"GODEBUG=" + os.Getenv("GODEBUG"), "GOMAXPROCS=" + os.Getenv("GOMAXPROCS")}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = append([]*os.File{theirs}, p.sockets...)
	err = cmd.Start()
	theirs.Close() // so that the helper's end is seen
	if err != nil {
		c.Close()
		return fmt.Errorf("starting the proxy's helper: %w", err)
	}
	go cmd.Wait() // its end is seen by the connection's
	return p.greet(ctx, newLink(c.(*net.UnixConn), cmd.Process.Pid))
}

// greet tells a new helper what is wanted.
func (p *Proxy) greet(ctx context.Context, l *link) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	_, err := l.ask(ctx, request{Verb: verbListen, Listen: p.opt.Listen, MaxWait: p.opt.Hold})
	if err == nil && p.backends != nil {
		_, err = l.ask(ctx, request{Verb: verbSwitch, Backends: p.backends, Timeout: startTime})
	}
	if err == nil && !p.held {
		_, err = l.ask(ctx, request{Verb: verbRelease})
	}
	if err != nil {
		l.conn.Close()
		return fmt.Errorf("starting the proxy's helper: %w", err)
	}
	p.link = l
	go p.watch(l)
	return nil
}

// watch starts another helper when one ends that should not have.
func (p *Proxy) watch(l *link) {
	<-l.gone
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Minute) {
		p.mu.Lock()
		if p.closed || p.link != l {
			p.mu.Unlock()
			return
		}
		p.opt.Log.Error("the proxy's helper process ended; another one is started")
		err := p.launch(context.Background())
		p.mu.Unlock()
		if err == nil {
			return
		}
		p.opt.Log.Error(err.Error())
		time.Sleep(wait)
	}
}

func newLink(c *net.UnixConn, pid int) *link {
	l := &link{conn: c, pid: pid, gone: make(chan struct{}), wait: map[int64]chan reply{}}
	go l.read()
	return l
}

func (l *link) read() {
	defer close(l.gone)
	in := newLines(l.conn)
	for {
		var r reply
		if err := in.next(&r); err != nil {
			return
		}
		l.mu.Lock()
		c := l.wait[r.ID]
		delete(l.wait, r.ID)
		l.mu.Unlock()
		if c != nil {
			c <- r
		}
	}
}

// ask gives an order and waits for its end.
func (l *link) ask(ctx context.Context, r request) (reply, error) {
	c := make(chan reply, 1)
	l.mu.Lock()
	l.next++
	r.V, r.ID = version, l.next
	l.wait[r.ID] = c
	err := writeLine(l.conn, r)
	l.mu.Unlock()
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", errGone, err)
	}
	t := time.NewTimer(r.Timeout + answerTime)
	defer t.Stop()
	select {
	case a := <-c:
		if a.Err != "" {
			return a, errors.New(a.Err)
		}
		return a, nil
	case <-l.gone:
		return reply{}, errGone
	case <-t.C:
		return reply{}, fmt.Errorf("the proxy's helper does not answer (%s)", r.Verb)
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

func (p *Proxy) order(ctx context.Context, r request) (reply, error) {
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	a, err := l.ask(ctx, r)
	if err != nil {
		err = fmt.Errorf("proxy: %s: %w", r.Verb, err)
	}
	return a, err
}

// Hold lets nothing new through, and waits for the end of what is under way,
// at most for the time. It returns how much still is.
func (p *Proxy) Hold(ctx context.Context, drain time.Duration) (left int, err error) {
	p.want(nil, true)
	a, err := p.order(ctx, request{Verb: verbHold, Timeout: drain})
	return a.Left, err
}

// Switch waits until the backends accept connections, at most for the time, and then uses
// them for what is let through from now on. What is under way goes on where it is.
func (p *Proxy) Switch(ctx context.Context, b Backends, within time.Duration) error {
	_, err := p.order(ctx, request{Verb: verbSwitch, Backends: b, Timeout: within})
	if err == nil {
		p.mu.Lock()
		p.backends = b
		p.mu.Unlock()
	}
	return err
}

// Release lets through what waits.
func (p *Proxy) Release(ctx context.Context) error {
	p.want(nil, false)
	_, err := p.order(ctx, request{Verb: verbRelease})
	return err
}

// Drain waits for the end of what is under way with former backends, at most
// for the time. It returns how much still is.
func (p *Proxy) Drain(ctx context.Context, within time.Duration) (left int, err error) {
	a, err := p.order(ctx, request{Verb: verbDrain, Timeout: within})
	return a.Left, err
}

// Stats tells what goes on.
func (p *Proxy) Stats(ctx context.Context) (Stats, error) {
	a, err := p.order(ctx, request{Verb: verbStats})
	return a.Stats, err
}

func (p *Proxy) want(b Backends, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b != nil {
		p.backends = b
	}
	p.held = held
}

// Backends returns those in force, nil before the first Switch.
func (p *Proxy) Backends() Backends {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.backends
}

// Addrs returns where the proxy listens, by name.
func (p *Proxy) Addrs() map[string]string {
	addrs := map[string]string{}
	for i, l := range p.opt.Listen {
		addrs[l.Name] = l.Address
		if s, err := net.FileListener(p.sockets[i]); err == nil {
			addrs[l.Name] = s.Addr().String()
			s.Close()
		}
	}
	return addrs
}

// Close ends the helper.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.link != nil {
		p.link.conn.Close()
	}
	p.closeSockets()
}

func (p *Proxy) closeSockets() {
	for _, f := range p.sockets {
		f.Close()
	}
}

// The names in a bundle.
const handoffKey = "proxy"

type handed struct {
	Pid      int      `json:"pid"`
	Listen   []Listen `json:"listen"`
	Backends Backends `json:"backends"`
	Held     bool     `json:"held"`
	Next     int64    `json:"next"`
}

// Handoff puts the helper into the bundle, for the program that takes this
// one's place. No order may be under way.
func (p *Proxy) Handoff(b *handoff.Bundle) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link.mu.Lock()
	next := p.link.next
	p.link.mu.Unlock()
	err := errors.Join(
		b.Put(handoffKey, handed{p.link.pid, p.opt.Listen, p.backends, p.held, next}),
		b.Add(handoffKey, p.link.conn))
	for i, l := range p.opt.Listen {
		err = errors.Join(err, b.Add(handoffKey+"/"+l.Name, p.sockets[i]))
	}
	return err
}

// Attach goes on with the helper of a bundle. When its listeners are not those
// of the options, or it doesn't answer, another one is started with the sockets.
// It returns nil when there is none in the bundle.
func Attach(ctx context.Context, b *handoff.Bundle, opt Options) (*Proxy, error) {
	var h handed
	conn := b.Take(handoffKey)
	if conn == nil || !b.Get(handoffKey, &h) {
		return nil, nil
	}
	defer conn.Close()
	p := &Proxy{opt: opt, backends: h.Backends, held: h.Held}
	p.opt.Listen = h.Listen
	for _, l := range h.Listen {
		f := b.Take(handoffKey + "/" + l.Name)
		if f == nil {
			p.closeSockets()
			return nil, fmt.Errorf("going on with the proxy: its listener %q was not handed over", l.Name)
		}
		p.sockets = append(p.sockets, f)
	}
	// It is our child; somebody has to wait for it.
	if proc, err := os.FindProcess(h.Pid); err == nil && h.Pid > 1 {
		go proc.Wait()
	}
	c, err := net.FileConn(conn)
	if err == nil {
		l := newLink(c.(*net.UnixConn), h.Pid)
		l.next = h.Next
		if _, err = l.ask(ctx, request{Verb: verbStats}); err == nil {
			p.link = l
			go p.watch(l)
			return p, nil
		}
		c.Close()
	}
	opt.Log.Warn("the proxy's helper process can't be taken over; another one is started", "err", err)
	if err := p.launch(ctx); err != nil {
		p.closeSockets()
		return nil, err
	}
	return p, nil
}
