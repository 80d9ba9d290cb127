//go:build !linux

package notify

import (
	"net"
	"os"
	"time"
)

// A Session is the notify socket of one run of the service. It needs Linux.
type Session struct{ conn *net.UnixConn }

// Listen returns [ErrUnsupported].
func Listen(Options) (*Session, error) { return nil, ErrUnsupported }

type saved struct{}

func (s *Session) save() (saved, error) { return saved{}, ErrUnsupported }

func resume(_ saved, f *os.File, _ Options) (*Session, error) {
	f.Close()
	return nil, ErrUnsupported
}

func (s *Session) Env() []string            { return nil }
func (s *Session) Attach()                  {}
func (s *Session) Ready() <-chan struct{}   { return nil }
func (s *Session) Expired() <-chan struct{} { return nil }
func (s *Session) Changed() <-chan struct{} { return nil }
func (s *Session) State() State             { return State{} }
func (s *Session) Extended() time.Time      { return time.Time{} }
func (s *Session) Close()                   {}
