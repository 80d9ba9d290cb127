//go:build !linux

package notify

import (
	"os"
	"time"
)

// A Session is the notify socket of one run of the service. It needs Linux.
type Session struct{}

// Listen returns [ErrUnsupported].
func Listen(Options) (*Session, error) { return nil, ErrUnsupported }

// Saved is a session for the supervisor's next program, beside its socket.
type Saved struct {
	Name     string        `json:"name"`
	Watchdog time.Duration `json:"watchdog,omitempty"`
	State    State         `json:"state"`
}

// Resume returns [ErrUnsupported].
func Resume(_ Saved, f *os.File, _ Options) (*Session, error) {
	f.Close()
	return nil, ErrUnsupported
}

func (s *Session) Env() []string                  { return nil }
func (s *Session) Attach()                        {}
func (s *Session) Ready() <-chan struct{}         { return nil }
func (s *Session) Expired() <-chan struct{}       { return nil }
func (s *Session) Changed() <-chan struct{}       { return nil }
func (s *Session) State() State                   { return State{} }
func (s *Session) Extended() time.Time            { return time.Time{} }
func (s *Session) Close()                         {}
func (s *Session) Save() (Saved, *os.File, error) { return Saved{}, nil, ErrUnsupported }
