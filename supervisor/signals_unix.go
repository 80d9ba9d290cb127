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
