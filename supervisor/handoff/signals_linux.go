package handoff

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// byDefault has the kernel itself end the process on the signals. The runtime's
// handler would do it a little later, and an exec in between lose the signal.
func byDefault(sigs []os.Signal) (restore func()) {
	// A struct sigaction is at most so long everywhere, and all zero says SIG_DFL.
	type action [64]byte
	old := map[syscall.Signal]*action{}
	change := func(sig syscall.Signal, to, from *action) bool {
		_, _, errno := unix.Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(from)), 8, 0, 0)
		return errno == 0
	}
	for _, sig := range sigs {
		if n, ok := sig.(syscall.Signal); ok {
			if was := new(action); change(n, new(action), was) {
				old[n] = was
			}
		}
	}
	return func() {
		for n, was := range old {
			change(n, was, nil)
		}
	}
}
