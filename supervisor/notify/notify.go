// Package notify speaks sd_notify(3) in both directions: it listens to the
// supervised service on a socket of the service's own, and tells systemd how
// the supervisor itself is.
//
// The service is not trusted. A datagram counts only when the kernel names as
// its sender a process that belongs to the service ([Options].Belongs); it is
// bounded, in bytes and descriptors, and what it says is a hint for people or a
// wish that the supervisor bounds. Nothing of it is passed to systemd as it is:
// in particular no MAINPID and no STOPPING, since the main process of the unit
// is the supervisor. Anybody on the machine can send to the socket (it is an
// abstract one, so that a service under another user, in a chroot or with
// dropped privileges reaches it); what others send is counted and dropped.
//
// systemd is trusted. Its socket is the one in our environment.
//
// It keeps no files.
package notify

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// ErrUnsupported is returned where the system doesn't tell who sent a message.
var ErrUnsupported = errors.New("sd_notify needs Linux, where the kernel names the sender of a message")

// Options are how a [Session] listens.
type Options struct {
	// Belongs reports whether a process is the service's main process or one
	// that it started. It is asked after Attach only.
	Belongs func(pid int) bool
	// Watchdog is the interval in which the service has to send WATCHDOG=1;
	// 0 = none, unless the service asks for one.
	Watchdog time.Duration
	// Patience is how long after the start the watchdog waits for READY or the
	// first sign of life.
	Patience time.Duration
	// Store takes the descriptors that the service wants kept; nil = none are.
	Store *Store
	Log   *slog.Logger
}

// State is what a service has said of itself, last.
type State struct {
	Ready     bool // READY=1 was said
	ReadyAt   time.Time
	Reloading bool
	Stopping  bool
	Status    string // one clean line, at most maxStatus bytes
	Errno     int
	MainPID   int           // as it says; 0 = it didn't
	Watchdog  time.Duration // interval in force
	Ping      time.Time     // last WATCHDOG=1
	Extended  time.Time     // until when it wants patience
	Messages  int           // understood
	Refused   int           // malformed, or of somebody else
}

// own are the variables that systemd sets for its main process. They say
// nothing true to anybody else.
var own = []string{
	"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
	"WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID", "FDSTORE", "SYSTEMD_EXEC_PID",
}

// Strip returns an environment without what systemd tells its main process.
func Strip(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(own, name)
	})
}
