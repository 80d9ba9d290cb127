package discover

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

type streamExchanger struct {
	*stream
	addr, via string
	tls       *tls.Config
}

func (s *streamExchanger) exchange(ctx context.Context, q *dns.Msg) (reply, error) {
	r, err := s.stream.exchange(ctx, q)
	return reply{r, s.addr, s.via, 1}, err
}

// stream is one connection for all questions to a server, which are sent
// without waiting for each other's answers.
type stream struct {
	name string
	dial func(context.Context) (net.Conn, error)

	mu      sync.Mutex
	conn    net.Conn
	pending map[uint16]chan *dns.Msg
	dials   int
	failed  error // of the last attempt to connect
	at      time.Time
}

// redial is for how long a failure to connect answers the other questions
// that wait for the same connection.
const redial = time.Second

var errClosed = errors.New("the server closed the connection")

func (s *stream) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	for attempt := 0; ; attempt++ {
		r, reused, err := s.try(ctx, q)
		// A connection that was idle may have been closed by the server meanwhile.
		if err != nil && reused && attempt == 0 && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		return r, nil
	}
}

func (s *stream) try(ctx context.Context, q *dns.Msg) (r *dns.Msg, reused bool, err error) {
	q = q.Copy()
	ch := make(chan *dns.Msg, 1)
	s.mu.Lock()
	reused = s.conn != nil
	if s.conn == nil {
		if s.failed != nil && time.Since(s.at) < redial {
			s.mu.Unlock()
			return nil, false, s.failed
		}
		conn, err := s.dial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.failed, s.at = err, time.Now()
			}
			s.mu.Unlock()
			return nil, false, err
		}
		s.dials++
		s.conn = conn
		s.pending = map[uint16]chan *dns.Msg{}
		go s.read(conn, s.pending)
	}
	conn, pending := s.conn, s.pending
	for q.Id = dns.Id(); pending[q.Id] != nil; q.Id = dns.Id() {
	}
	pending[q.Id] = ch
	wire, err := q.Pack()
	if err == nil {
		out := binary.BigEndian.AppendUint16(nil, uint16(len(wire)))
		conn.SetWriteDeadline(time.Now().Add(idleTimeout))
		_, err = conn.Write(append(out, wire...))
	}
	s.mu.Unlock()
	if err != nil {
		s.drop(conn)
		return nil, reused, err
	}
	conn.SetReadDeadline(time.Now().Add(idleTimeout))
	defer func() {
		s.mu.Lock()
		delete(pending, q.Id)
		s.mu.Unlock()
	}()
	select {
	case r, ok := <-ch:
		if !ok {
			return nil, reused, errClosed
		}
		if !answers(q, r, false) {
			return nil, false, errors.New("the answer is to another question")
		}
		return r, reused, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

func (s *stream) read(conn net.Conn, pending map[uint16]chan *dns.Msg) {
	defer func() {
		s.drop(conn)
		s.mu.Lock()
		for id, ch := range pending {
			delete(pending, id)
			close(ch)
		}
		s.mu.Unlock()
	}()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, buf); err != nil {
			return
		}
		m := new(dns.Msg)
		if m.Unpack(buf) != nil {
			return
		}
		s.mu.Lock()
		if ch := pending[m.Id]; ch != nil {
			delete(pending, m.Id)
			ch <- m
		}
		s.mu.Unlock()
	}
}

func (s *stream) drop(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Close()
	if s.conn == conn {
		s.conn = nil
	}
}

func (s *stream) close() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		s.drop(conn)
	}
}
