package process

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/handoff"
)

// Adopt goes on with the process of a bundle that is not our child: the program
// that was its parent has ended. How it ends can't be known then, only when.
func (r *OS) Adopt(b *handoff.Bundle, s Spec) (Process, error) {
	var h handed
	if !b.Get(handoffKey, &h) || h.Pid <= 1 {
		return nil, errors.New("taking over the service: nothing was handed over")
	}
	fd, err := unix.PidfdOpen(h.Pid, 0)
	if err != nil {
		return nil, fmt.Errorf("taking over the service: process %d: %w", h.Pid, err)
	}
	proc, err := os.FindProcess(h.Pid)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("taking over the service: %w", err)
	}
	// Both first: what is compared is what they stand for, or has ended.
	if start, err := startTime(h.Pid); err != nil || start != h.Start {
		unix.Close(fd)
		_ = proc.Release() // it can't fail
		return nil, fmt.Errorf("taking over the service: process %d has ended", h.Pid)
	}
	r.last.Store(int64(h.Pid))
	p := &osProcess{runner: r, spec: s, done: make(chan struct{}), proc: proc, pid: h.Pid, started: h.Started, mark: h.Mark}
	if err := r.write(describe(p.pid, p.mark)); err != nil {
		r.log.Error("the service's process can't be recorded; if upkeep is killed, the service has to be ended by hand", "err", err)
	}
	go func() {
		awaitEnd(fd)
		p.ended(Exit{Code: -1, Unknown: true, After: time.Since(p.started)})
	}()
	return p, nil
}

// awaitEnd returns when the process of a descriptor has ended, and closes it.
func awaitEnd(fd int) {
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// killGroup kills the process group and reports whether somebody in it is left.
// Of an adopted process nobody may have taken note of the end: what is only that
// isn't left.
func (p *osProcess) killGroup() bool {
	if left := killGroup(p.pid); !left || p.mark == "" {
		return left
	}
	for _, pid := range pids() {
		if s, err := procStat(pid); err == nil && s.pgrp == p.pid && !s.ended() {
			return true
		}
	}
	return false
}

// killMarked kills what an adopted process has left behind, which doesn't come
// to us, and reports whether there was anything.
func (p *osProcess) killMarked() bool {
	if p.mark == "" {
		return false
	}
	left := markedProcesses(p.mark)
	for _, pid := range left {
		killOne(pid)
	}
	return len(left) > 0
}
