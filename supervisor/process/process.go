// Package process runs the service: starts it, passes its output and signals
// on, stops it with everything that it started, and finds what a killed
// supervisor left running.
//
// The service is not trusted to end: after the grace period its whole process
// group is killed, and on Linux also what left the group, since the supervisor
// adopts orphans (it is their subreaper). Output is read without bound and
// kept with one.
//
// Files: in the state folder, `process` names the running process by id, start
// time and boot, and the mark that is in its environment; `exec` holds a symlink
// by which an open file is executed (Linux).
//
// A service whose listening sockets are to be handed over is started through
// this program itself ([Shim]), which has the kernel tell of the service's bind
// calls. What can't be set up for that is told to the [Handover], and the
// service starts without.
package process

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// A Spec says what to run and how.
type Spec struct {
	File   string   // to execute
	Open   *os.File // the same, opened and verified: executed itself where that is possible; nil = by name
	Name   string   // argv[0]
	Args   []string // from argv[1] on
	Env    []string
	Dir    string
	Cred   *Cred // nil = as the supervisor
	Stop   syscall.Signal
	Grace  time.Duration
	Output *Output // nil = the supervisor's own stdout and stderr
	Cgroup string  // folder of the control group to run in (Linux); "" = the supervisor's own
	// Patience is until when the service has asked for time to end, at most ten
	// grace periods; nil = it doesn't.
	Patience func() time.Time

	// What follows is done by this program itself between fork and exec
	// ([Shim]), on Linux.
	Rlimits   []Rlimit
	ListenFDs []ListenFD
	Handover  Handover // nil = none
	TellBinds bool     // to the handover
}

// A Cred is who the service runs as.
type Cred struct {
	UID, GID uint32
	Groups   []uint32
	Ambient  []uintptr // Linux capabilities
}

// Exit is how a process ended.
type Exit struct {
	Code   int            // -1 when it was killed
	Signal syscall.Signal // 0 unless it was killed
	Core   bool
	// Unknown: it wasn't our child, so neither status nor signal are known.
	Unknown bool
	After   time.Duration // how long it ran
	Rusage  *Rusage
}

// Rusage is what it used.
type Rusage struct {
	User, System time.Duration
	MaxRSS       int64 // bytes
}

func (e Exit) String() string {
	if e.Unknown {
		return fmt.Sprintf("ended after %v, and how is not known, since the upkeep that started it had ended", round(e.After))
	}
	if e.Signal != 0 {
		return fmt.Sprintf("was killed by signal %d (%v) after %v", int(e.Signal), e.Signal, round(e.After))
	}
	return fmt.Sprintf("exited with status %d after %v", e.Code, round(e.After))
}

// Status is the exit status to end with after a process that ended so, as a
// shell gives it.
func (e Exit) Status() int {
	switch {
	case e.Unknown:
		return 1
	case e.Signal != 0:
		return 128 + int(e.Signal)
	}
	return e.Code
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

// A Process is a started service.
type Process interface {
	Pid() int
	Started() time.Time
	// Done is closed when the process has ended; Exit is valid from then on.
	Done() <-chan struct{}
	Exit() Exit
	Signal(os.Signal) error
	// Stop asks the process to end, kills it after the grace period or when
	// ctx ends, and returns when nothing of its process group is left.
	// killed tells that it didn't end by itself in time.
	Stop(ctx context.Context) (killed bool, err error)
}

// A Runner starts processes. It is the engine's only way to them.
type Runner interface {
	// Recover ends what an earlier supervisor left running, and says what it did.
	Recover() (string, error)
	Start(Spec) (Process, error)
}
