package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A Handover keeps what the service listens on while one process ends and the
// next one starts.
type Handover interface {
	// Started is told of each start, before the service's first instruction.
	// notify is the descriptor by which the service's bind calls are told; the
	// handover owns it. nil means that there is none; then why says what went
	// wrong, or is empty when it wasn't asked for.
	Started(pid int, notify *os.File, why string)
	// Stopping is called before the stop signal, which waits for it.
	Stopping(pid int)
	// Ended is told of the process's end.
	Ended(pid int, x Exit)
}

// An Rlimit is a resource limit of the service.
type Rlimit struct {
	Resource   int // RLIMIT_…
	Soft, Hard uint64
}

// A ListenFD is a socket that the service gets from descriptor 3 on, in the
// manner of systemd's socket activation.
type ListenFD struct {
	Name string
	File *os.File
}

// shimName is what this program is called as when it is to become the service.
const shimName = "upkeep-shim"

// instructions tell the shim how to become the service.
type instructions struct {
	File    string   // what to execute
	Dir     string   `json:",omitempty"`
	Cred    *Cred    `json:",omitempty"`
	Rlimits []Rlimit `json:",omitempty"`
	Listen  []string `json:",omitempty"` // names of the descriptors from 3 on
	Notify  bool     `json:",omitempty"` // have the bind calls told
	Cgroup  string   `json:",omitempty"` // folder of the control group to run in
}

// report is what the shim answers. The end of the conversation without an
// error means that the service's program runs.
type report struct {
	Warn  string        `json:",omitempty"` // why bind calls aren't told
	Err   string        `json:",omitempty"` // why the service can't be started
	Errno syscall.Errno `json:",omitempty"`
}

// maxShimMessage bounds both.
const maxShimMessage = 64 << 10

// A serviceError is why the service can't be started, not why the shim can't.
type serviceError struct {
	msg   string
	errno syscall.Errno
}

func (e *serviceError) Error() string { return e.msg }

func (e *serviceError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// launch starts the service, through the shim if it needs one.
func (r *OS) launch(s Spec, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	why := ""
	must := len(s.Rlimits) > 0 || len(s.ListenFDs) > 0
	if must || s.TellBinds || s.Cgroup != "" {
		p, err := r.startShim(s, argv, attr)
		var service *serviceError
		if err == nil || errors.As(err, &service) {
			return p, err
		}
		if must {
			return nil, fmt.Errorf("preparing its limits and sockets: %w", err)
		}
		why = err.Error()
	}
	if s.Handover != nil {
		s.Handover.Started(0, nil, why)
	}
	file := s.File
	if s.Open != nil {
		file = r.executable(s, s.Open.Fd())
	}
	return os.StartProcess(file, argv, attr)
}

// shimReady is set by [Shim]: a program that doesn't call it can't be started as one.
var shimReady bool
