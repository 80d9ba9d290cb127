package supervisor

import (
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"errors"
)

// A gate is a listener that can be told to let nobody in for a while, and that
// knows how many are inside. Those outside wait in the kernel's queue.
type gate struct {
	net.Listener

	mu     sync.Mutex
	closed bool          // nobody is let in
	parked chan struct{} // closed when Accept has noticed that
	opened chan struct{} // closed when somebody is let in again, or never will be
	inside int
	gone   chan struct{} // closed when nobody is inside; nil = nobody asked
}

func newGate(l net.Listener) *gate {
	return &gate{Listener: l, opened: make(chan struct{}), parked: make(chan struct{})}
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		g.mu.Lock()
		opened := g.opened
		if g.closed {
			select {
			case <-g.parked:
			default:
				close(g.parked)
			}
		}
		closed := g.closed
		g.mu.Unlock()
		if closed {
			<-opened
		}
	}
}

// Close also ends a pause.
func (g *gate) Close() error {
	err := g.Listener.Close()
	g.resume()
	return err
}

// parkTime bounds waiting for Accept.
const parkTime = time.Second

// pause lets nobody in any more, and returns when everybody who was let in is counted.
func (g *gate) pause() {
	d, ok := g.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return
	}
	g.mu.Lock()
	g.closed = true
	parked := g.parked
	g.mu.Unlock()
	_ = d.SetDeadline(time.Unix(1, 0)) // an error means that it is closed
	select {
	case <-parked:
	case <-time.After(parkTime):
	}
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		return
	}
	if d, ok := g.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Time{})
	}
	g.closed = false
	close(g.opened)
	g.opened, g.parked = make(chan struct{}), make(chan struct{})
}

// state counts, as [http.Server.ConnState]. It is called for a connection
// before the next one is accepted.
func (g *gate) state(_ net.Conn, s http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch s {
	case http.StateNew:
		g.inside++
	case http.StateClosed, http.StateHijacked:
		g.inside--
	}
	if g.inside == 0 && g.gone != nil {
		close(g.gone)
		g.gone = nil
	}
}

// empty is closed when nobody is inside.
func (g *gate) empty() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone == nil {
		g.gone = make(chan struct{})
	}
	gone := g.gone
	if g.inside == 0 {
		close(gone)
		g.gone = nil
	}
	return gone
}
