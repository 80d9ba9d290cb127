//go:build unix

package process

import (
	"errors"
	"os"
	"syscall"
)

// killGroup kills a process group and reports whether it still has members
// that can be killed; zombies that wait for us don't count for long.
func killGroup(pgid int) bool {
	err := syscall.Kill(-pgid, syscall.SIGKILL)
	return !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EPERM)
}

func killOne(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

func maxRSS(st *os.ProcessState) int64 {
	if ru, ok := st.SysUsage().(*syscall.Rusage); ok {
		return int64(ru.Maxrss) * maxRSSUnit
	}
	return 0
}
