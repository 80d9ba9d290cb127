//go:build unix

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/handoff"
)

// endTime bounds the end of a killed process.
const endTime = 10 * time.Second

// takeOver makes this program the supervisor. It returns only when it can't be.
func (w *watched) takeOver(b *handoff.Bundle, s standIn) error {
	if w.alive() {
		_ = syscall.Kill(w.order.Pid, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(endTime); w.alive(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d, a new upkeep that hangs, can't be ended", w.order.Pid)
		}
	}
	lock := b.Take(lockFile)
	if lock == nil {
		return errors.New("taking over from a new upkeep that failed: the lock was not handed over")
	}
	// It is ours, unless the new version gave it up at its end.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("a new upkeep failed, and another one runs already: %w", err)
	}
	err := errors.Join(b.Add(lockFile, lock), b.Put(standbyKey, standbyOrder{}), b.Put(standInKey, s))
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	env := os.Environ()
	for i, kv := range env {
		// systemd's watchdog expects the main process, which this one is from now on.
		if name, pid, _ := strings.Cut(kv, "="); name == "WATCHDOG_PID" && pid == strconv.Itoa(w.order.Pid) {
			env[i] = "WATCHDOG_PID=" + strconv.Itoa(os.Getpid())
		}
	}
	return b.Exec(os.TempDir(), exe, os.Args, env)
}
