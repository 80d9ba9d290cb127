package notify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Session is the notify socket of one run of the service.
type Session struct {
	opt  Options
	name string
	conn *net.UnixConn
	now  func() time.Time

	attached chan struct{}
	ready    chan struct{}
	expired  chan struct{}
	changed  chan struct{}
	ended    chan struct{} // the reader has returned

	mu       sync.Mutex
	life     life
	attach   sync.Once
	bit      bool
	closed   bool
	complain int // refusals that may still be logged
}

// Listen makes the socket, before the service starts.
func Listen(opt Options) (*Session, error) {
	name := "@upkeep/" + rand.Text() + "/notify"
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("making the service's notify socket: %w", err)
	}
	return newSession(name, conn, opt, begin(opt, time.Now()))
}

func newSession(name string, conn *net.UnixConn, opt Options, l life) (*Session, error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		var errOpt error
		err = raw.Control(func(fd uintptr) {
			errOpt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		err = errors.Join(err, errOpt)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("making the service's notify socket: %w", err)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Session{
		opt: opt, name: name, conn: conn, now: time.Now, life: l, complain: 5,
		attached: make(chan struct{}), ready: make(chan struct{}), expired: make(chan struct{}),
		changed: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	if l.Ready {
		close(s.ready)
	}
	go s.read()
	return s, nil
}

// Env is what the service needs in its environment.
func (s *Session) Env() []string {
	env := []string{"NOTIFY_SOCKET=" + s.name}
	if s.opt.Watchdog > 0 {
		env = append(env, fmt.Sprintf("WATCHDOG_USEC=%d", s.opt.Watchdog.Microseconds()))
	}
	return env
}

// Attach tells that the service was started: Belongs can be asked, and what
// was sent since is read now.
func (s *Session) Attach() { s.attach.Do(func() { close(s.attached) }) }

// Ready is closed when the service has said READY=1.
func (s *Session) Ready() <-chan struct{} { return s.ready }

// Expired is closed when the service has missed its watchdog, or asks to be
// treated so.
func (s *Session) Expired() <-chan struct{} { return s.expired }

// Changed receives when State has changed.
func (s *Session) Changed() <-chan struct{} { return s.changed }

// State is what the service has said.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life.State
}

// Extended is until when the service wants patience with its start or stop.
func (s *Session) Extended() time.Time { return s.State().Extended }

// Close ends the session.
func (s *Session) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Attach() // lets the reader go on, to its end
	s.conn.Close()
	<-s.ended
}

// read is the session's goroutine. The watchdog is the time at which reading is given up.
func (s *Session) read() {
	defer close(s.ended)
	<-s.attached
	buf := make([]byte, maxMessage+1)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFiles))
	for {
		s.mu.Lock()
		deadline, bit, closed := s.life.deadline(), s.bit, s.closed
		s.mu.Unlock()
		if closed {
			return
		}
		if bit {
			deadline = time.Time{} // it bites once
		}
		// Times of the past make reads fail at once, as wanted.
		_ = s.conn.SetReadDeadline(deadline)
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(buf, oob)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.bite()
		case err != nil:
			return // closed
		default:
			s.datagram(buf[:n], oob[:oobn], flags)
		}
	}
}

// bite closes expired, once, when the watchdog says so.
func (s *Session) bite() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.bit && s.life.expired(s.now()) {
		s.bit = true
		close(s.expired)
	}
}

// datagram takes what was received. The descriptors in it are stored or closed.
func (s *Session) datagram(data, oob []byte, flags int) {
	sender, files, err := control(oob)
	defer func() {
		for _, f := range files {
			f.Close() // a BARRIER ends by this
		}
	}()
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("it is longer, or has more descriptors, than a message may have")
	}
	if err == nil && !s.opt.Belongs(sender) {
		err = fmt.Errorf("its sender, process %d, is not of the service", sender)
	}
	var m Message
	if err == nil {
		m, err = Parse(data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}()
	if err != nil {
		s.life.Refused++
		if s.complain > 0 {
			s.complain--
			s.opt.Log.Warn("a message to the service's notify socket is not used", "why", err)
		}
		return
	}
	s.life.hear(m, s.now())
	if s.life.Ready {
		select {
		case <-s.ready:
		default:
			close(s.ready)
		}
	}
	if s.life.bitten && !s.bit {
		s.bit = true
		close(s.expired)
	}
	if s.opt.Store == nil {
		return
	}
	if m.FDRemove {
		s.opt.Store.Remove(m.FDName)
	}
	if m.FDStore {
		for _, f := range files {
			if err := s.opt.Store.add(m.FDName, f, !m.FDPollOff); err != nil {
				s.opt.Log.Warn("a descriptor that the service wants kept is not", "err", err)
			}
		}
		files = nil
	}
}

// control reads what the kernel passed beside a datagram: who sent it, and its
// descriptors.
func control(oob []byte) (sender int, files []*os.File, err error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil, err
	}
	for i := range msgs {
		switch {
		case msgs[i].Header.Level != syscall.SOL_SOCKET:
		case msgs[i].Header.Type == syscall.SCM_RIGHTS:
			fds, errR := syscall.ParseUnixRights(&msgs[i])
			err = errors.Join(err, errR)
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "stored"))
			}
		case msgs[i].Header.Type == syscall.SCM_CREDENTIALS:
			cred, errC := syscall.ParseUnixCredentials(&msgs[i])
			if errC == nil {
				sender = int(cred.Pid)
			}
			err = errors.Join(err, errC)
		}
	}
	if err == nil && sender <= 0 {
		err = errors.New("the kernel does not say who sent it")
	}
	return sender, files, err
}

// saved is a session for the supervisor's next program, beside its socket.
type saved struct {
	Name     string        `json:"name"`
	Watchdog time.Duration `json:"watchdog,omitempty"` // as configured, which is in the service's environment
	State    State         `json:"state"`
}

func (s *Session) save() (saved, error) {
	return saved{s.name, s.opt.Watchdog, s.State()}, nil
}

func resume(saved saved, f *os.File, opt Options) (*Session, error) {
	c, err := net.FilePacketConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("going on with the service's notify socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("going on with the service's notify socket: the descriptor is another one")
	}
	opt.Watchdog = saved.Watchdog
	l := life{State: saved.State, armed: saved.State.Ready || !saved.State.Ping.IsZero()}
	l.Ping = time.Now()
	l.patience = l.Ping.Add(opt.Patience)
	return newSession(saved.Name, conn, opt, l)
}
