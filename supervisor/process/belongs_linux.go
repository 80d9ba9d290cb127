package process

import (
	"os"
	"syscall"
)

// maxDepth bounds the walk to a process's ancestors.
const maxDepth = 64

// Belongs reports whether a process is the service's main process, of its
// process group, or started by one of these, however many steps in between. An
// orphan, which the supervisor adopted, is the service's too.
func Belongs(pid, main int) bool {
	self := os.Getpid()
	for range maxDepth {
		if pid == main {
			return true
		}
		if pid <= 1 || pid == self {
			return false
		}
		s, err := procStat(pid)
		if err != nil {
			return false
		}
		if s.pgrp == main {
			return true
		}
		if s.ppid == self {
			return !known(pid) && s.pgrp != syscall.Getpgrp()
		}
		pid = s.ppid
	}
	return false
}

// known reports whether a child was started by this process for itself.
func known(pid int) bool {
	ours.Lock()
	defer ours.Unlock()
	return ours.pids[pid]
}
