//go:build unix

package supervisor

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func signalByName(name string) (syscall.Signal, bool) {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	s := unix.SignalNum(name)
	return s, s != 0
}

// ends says whether a service may end by a signal. Those that only stop or go
// on with a process, and can't be caught or are caught by none, end nothing.
func ends(s syscall.Signal) bool {
	switch s {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCHLD:
		return false
	}
	return true
}
