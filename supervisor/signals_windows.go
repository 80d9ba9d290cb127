package supervisor

import (
	"strings"
	"syscall"
)

func signalByName(name string) (syscall.Signal, bool) {
	switch strings.TrimPrefix(strings.ToUpper(name), "SIG") {
	case "TERM":
		return syscall.SIGTERM, true
	case "INT":
		return syscall.SIGINT, true
	case "KILL":
		return syscall.SIGKILL, true
	}
	return 0, false
}

// ends says whether a service may end by a signal; all of the above do that.
func ends(syscall.Signal) bool { return true }
