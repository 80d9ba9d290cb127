//go:build unix && !linux

package process

import (
	"errors"
	"os"
	"syscall"
)

func sysProcAttr(c *Cred) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if c != nil {
		attr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	return attr
}

// What follows needs Linux. Elsewhere the process group is all that is ended,
// and a service that outlives a killed supervisor is found on macOS only.

func becomeSubreaper() error { return nil }

func bootID() string { return "" }

func markedProcesses(string) []int { return nil }

func (r *OS) killOrphans() bool { return false }

func (r *OS) reap() {}

func (r *OS) reapNow() {}

var errUnknown = errors.New("not known on this system")

func (r *OS) executable(s Spec, _ uintptr) string { return s.File }

func executes(int, *os.File) bool { return true }
