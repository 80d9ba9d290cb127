package dnsserver

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// connLimit bounds connections, in all and from one address.
type connLimit struct {
	mu           sync.Mutex
	total, perIP int
	n            int
	open         map[netip.Prefix]int
}

func newConnLimit(total, perIP int) *connLimit {
	return &connLimit{total: total, perIP: perIP, open: map[netip.Prefix]int{}}
}

func (l *connLimit) set(total, perIP int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total, l.perIP = total, perIP
}

// clientPrefix is what counts as one client: an IPv4 address or an IPv6 /64.
func clientPrefix(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

func (l *connLimit) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := clientPrefix(a)
	if l.n >= l.total || l.open[p] >= l.perIP {
		return false
	}
	l.n++
	l.open[p]++
	return true
}

func (l *connLimit) leave(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := clientPrefix(a)
	l.n--
	if l.open[p]--; l.open[p] == 0 {
		delete(l.open, p)
	}
}

// Time limits of a connection, beside the idle limit.
const (
	messageTime = 5 * time.Second  // from the first byte of a query to its last
	writeTime   = 10 * time.Second // an answer may wait for a slow reader
)

// ServeStream answers on connections of a listener until the server is closed, or
// stop is called; then connections go on until they are idle.
func (s *Server) ServeStream(l net.Listener, t Transport) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	context.AfterFunc(ctx, func() { l.Close() })
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
					return
				}
				// Most likely out of file descriptors: leave time to close some.
				s.h.log.Error("accepting a connection", "transport", t, "err", err)
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			client, leave, ok := s.enterConn(c, t)
			if !ok {
				c.Close()
				continue
			}
			s.wg.Go(func() {
				defer leave()
				defer c.Close()
				s.serveStream(c, client)
			})
		}
	})
	return cancel
}

// enterConn is Enter for a connection.
func (s *Server) enterConn(c net.Conn, t Transport) (client Client, leave func(), ok bool) {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return client, nil, false
	}
	client = Client{netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), t}
	leave, ok = s.Enter(client)
	return client, leave, ok
}

// Limited is a listener whose connections count against the server's limits until
// they are closed, for a transport that is served elsewhere.
func (s *Server) Limited(l net.Listener, t Transport) net.Listener {
	return &limitedListener{l, s, t}
}

type limitedListener struct {
	net.Listener
	server    *Server
	transport Transport
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if _, leave, ok := l.server.enterConn(c, l.transport); ok {
			return &limitedConn{c, sync.OnceFunc(leave)}, nil
		}
		c.Close()
	}
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// A stream is one connection. Answers that need a signature are written later
// and so out of order, which RFC 7766 allows; the others at once.
type stream struct {
	conn    net.Conn
	writes  sync.Mutex     // one at a time
	room    chan struct{}  // a place for each query that waits for a signature, or for its answer to be written
	waiting sync.WaitGroup // those queries

	mu      sync.Mutex // of what follows
	late    []byte     // answers that were signed and are to be written
	count   int        // how many those are
	writing bool       // somebody writes them
}

// maxLate is how many queries of a connection may wait; then no more are read.
const maxLate = 32

func newStream(c net.Conn) *stream { return &stream{conn: c, room: make(chan struct{}, maxLate)} }

func (s *Server) serveStream(c net.Conn, client Client) {
	st := newStream(c)
	defer st.waiting.Wait()
	// A read that waits returns when the server ends.
	defer context.AfterFunc(s.ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	in := make([]byte, 2048)
	out := make([]byte, 0, 2048)
	have := 0
	var began time.Time // when the first byte of a query came that is not whole yet
	var q query
	for {
		// Answer every complete message that has been read.
		used, answers := 0, 0
		start := time.Now()
		for have-used >= 2 {
			size := int(binary.BigEndian.Uint16(in[used:]))
			if have-used < 2+size {
				break
			}
			packet := in[used+2 : used+2+size]
			used += 2 + size
			answers++
			var ok bool
			if out, ok = s.respondStream(out, packet, client, &q, st); !ok {
				st.write(out)
				return
			}
			if len(out) > 32<<10 {
				if st.write(out) != nil {
					return
				}
				out = out[:0]
			}
		}
		if len(out) > 0 {
			if st.write(out) != nil {
				return
			}
			out = out[:0]
			s.h.stat.took(time.Since(start), answers)
		}
		copy(in, in[used:have])
		have -= used
		if have >= 2 {
			if need := 2 + int(binary.BigEndian.Uint16(in)); need > len(in) {
				in = append(in, make([]byte, need-len(in))...)
			}
		}
		now := time.Now()
		until := now.Add(time.Duration(s.h.idle.Load()))
		if have > 0 {
			if began.IsZero() || used > 0 {
				began = now
			}
			until = began.Add(messageTime)
		} else {
			began = time.Time{}
		}
		if c.SetReadDeadline(until) != nil || s.ctx.Err() != nil {
			return
		}
		n, err := c.Read(in[have:])
		if err != nil {
			return // closed, too slow, or reset: nothing to answer
		}
		have += n
	}
}

// respondStream appends the answer with its length before it. It returns false
// when the connection is of no more use.
func (s *Server) respondStream(out, packet []byte, client Client, q *query, st *stream) ([]byte, bool) {
	n := len(out)
	out = append(out, 0, 0)
	resp, ok := s.h.respond(out, packet, client, q, s.h.now(), atOnce)
	if !ok {
		out = out[:n]
		// The connection waits, no other does.
		select {
		case st.room <- struct{}{}:
		case <-s.ctx.Done():
			return out, false
		}
		st.waiting.Add(1)
		p := pending{packet: append([]byte(nil), packet...), client: client, since: time.Now(), send: st.later}
		select {
		case s.sign <- p:
			return out, true
		case <-s.ctx.Done():
			st.done(1)
			return out, false
		}
	}
	size := len(resp) - n - 2
	if size == 0 {
		return resp[:n], false // what asks no question has no place in a stream
	}
	binary.BigEndian.PutUint16(resp[n:], uint16(size))
	return resp, true
}

// later takes an answer that was signed. It does not wait for the reader of the
// connection: whoever signs is needed by the others.
func (st *stream) later(b []byte) {
	if len(b) == 0 {
		st.done(1)
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.late = append(binary.BigEndian.AppendUint16(st.late, uint16(len(b))), b...)
	st.count++
	if !st.writing {
		st.writing = true
		go st.writeLate()
	}
}

// writeLate writes until nothing is left that could be written.
func (st *stream) writeLate() {
	for {
		st.mu.Lock()
		b, n := st.late, st.count
		st.late, st.count, st.writing = nil, 0, n > 0
		st.mu.Unlock()
		if n == 0 {
			return
		}
		if st.write(b) != nil {
			st.conn.Close() // so that the next writes fail at once, and the reader ends
		}
		st.done(n)
	}
}

// done notes that n queries no longer wait.
func (st *stream) done(n int) {
	for range n {
		<-st.room
		st.waiting.Done()
	}
}

func (st *stream) write(b []byte) error {
	st.writes.Lock()
	defer st.writes.Unlock()
	if err := st.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := st.conn.Write(b)
	return err
}
