//go:build unix

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/handoff"
)

// endTime bounds the end of a killed process.
const endTime = 10 * time.Second

// replace ends the main process and takes what it had for itself alone, the lock.
func (w *watched) replace(b *handoff.Bundle) (lock *os.File, err error) {
	if w.alive() {
		_ = syscall.Kill(w.order.Pid, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(endTime); w.alive(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("process %d, a new upkeep that hangs, can't be ended", w.order.Pid)
		}
	}
	if lock = b.Take(lockFile); lock == nil {
		return nil, errors.New("taking over from a new upkeep that failed: the lock was not handed over")
	}
	// It is ours, unless the new version gave it up at its end.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("a new upkeep failed, and another one runs already: %w", err)
	}
	// systemd's watchdog expects the main process, which this one is from now on.
	const watchdogPid = "WATCHDOG_PID"
	if os.Getenv(watchdogPid) == strconv.Itoa(w.order.Pid) {
		_ = os.Setenv(watchdogPid, strconv.Itoa(os.Getpid())) // it is set already
	}
	return lock, nil
}
