// Package sandbox runs one command on input that is not trusted.
//
// The command sees only the folders that its [Job] names, under the names that
// the job gives them, a private /tmp of bounded size, and no network unless
// the job asks for it. It has a clean environment, no capabilities, another
// user id than a server that runs as root, limits on processes, memory, file
// size and time, and it ends with its whole process tree.
//
// Trusted: the kernel, bubblewrap (bwrap), and whoever prepares the folders.
// Not trusted: everything that the command reads and does. The package keeps
// no files.
//
// The server re-executes itself as the first process in the sandbox (limits
// can only be set from inside): a program that uses this package calls
// [Reexec] before anything else in main.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Mount is a folder or file that a command may see.
type Mount struct {
	Source string // outside, absolute
	Target string // inside, absolute
	Write  bool
}

// Limits bound a command. A zero field sets no limit.
type Limits struct {
	Wall      time.Duration // for the whole command
	Memory    int64         // bytes, for all processes together where cgroups are there, else for each
	Processes int64         // processes and threads
	FileSize  int64         // bytes, of each file written
	TmpSize   int64         // bytes, of /tmp
}

// A Job is one command to run.
type Job struct {
	Args    []string // Args[0] is an absolute path, as [Sandbox.Path] gives it
	Env     []string // the whole environment
	Dir     string   // working folder, as [Sandbox.Path] gives it; "" for /tmp
	Mounts  []Mount
	Network bool
	Limits  Limits
	Output  io.Writer // standard output and standard error

	// CPU is told the processor time of the command when that is known.
	CPU func(time.Duration)
}

// A Sandbox runs commands. Its methods may be called concurrently.
type Sandbox interface {
	// Run runs the command and waits for its whole process tree to end.
	Run(ctx context.Context, job Job) error
	// Path returns the name under which a command finds the source of a mount.
	Path(m Mount) string
	// Own gives a folder and what is in it to the user that commands run as.
	Own(path string) error
	// Probe attacks the sandbox and returns an error when it does not hold. dir
	// is a folder below which builds run.
	Probe(ctx context.Context, dir string) error
	// Tool returns the value for -toolexec that confines each tool of the go
	// command to its package's own folder, "" when that can't be done.
	Tool() string
	// Missing names the mechanisms that are not in force; empty for a full sandbox.
	Missing() []string
}

// An ExitError is a command that ran and failed by itself.
type ExitError struct {
	Code   int
	Signal string // name of the signal that ended it, if one did
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "ended by signal " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Errors of [Sandbox.Run] that say nothing about the command's input.
var (
	// ErrTimeout is returned when the command took longer than its limit.
	ErrTimeout = errors.New("took longer than allowed")
	// ErrMemory is returned when the kernel ended a process for lack of memory.
	ErrMemory = errors.New("needed more memory than allowed")
)

// Names of mechanisms, as configured and as [Sandbox.Missing] gives them.
const (
	Bubblewrap = "bubblewrap"
	Cgroup     = "cgroup"
	Landlock   = "landlock"
)

// A MissingError is a mechanism that this machine does not give.
type MissingError struct {
	Mechanism string
	Reason    string
	Install   string // what to do to get it
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("builds can't be confined here, %s is missing: %s; %s", e.Mechanism, e.Reason, e.Install)
}

// Config of a sandbox.
type Config struct {
	None    bool     // no confinement at all; for a machine that builds only source its owner trusts
	Without []string // mechanisms whose loss is accepted
	User    int      // uid and gid of the commands when the server runs as root; 0 for DefaultUser
}

// DefaultUser is the user id of commands when the server runs as root. It has
// no name and owns nothing on a usual system.
const DefaultUser = 64998

const tmpDir = "/tmp"
