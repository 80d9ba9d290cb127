package process

import (
	"errors"
	"os"
	"syscall"
)

// On Windows the process alone is ended.

func sysProcAttr(*Cred) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func killGroup(int) bool { return false }

func killOne(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func maxRSS(*os.ProcessState) int64 { return 0 }

func becomeSubreaper() error { return nil }

func bootID() string { return "" }

func markedProcesses(string) []int { return nil }

func (r *OS) killOrphans() bool { return false }

func (r *OS) reap() {}

func (r *OS) reapNow() {}

func startTime(int) (uint64, error) { return 0, errors.New("not known on this system") }

func (r *OS) executable(s Spec, _ uintptr) string { return s.File }

func executes(int, *os.File) bool { return true }
