package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const maxRSSUnit = 1

// startTime returns when a process started, in microseconds.
func startTime(pid int) (uint64, error) {
	kp, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnknown, err)
	}
	const zombie = 5 // SZOMB
	if kp.Proc.P_stat == zombie {
		return 0, errUnknown
	}
	tv := kp.Proc.P_starttime
	return uint64(tv.Sec)*1e6 + uint64(tv.Usec), nil
}
