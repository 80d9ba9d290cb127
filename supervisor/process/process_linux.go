package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const maxRSSUnit = 1024

func sysProcAttr(c *Cred) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if c != nil {
		attr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
		attr.AmbientCaps = c.Ambient
	}
	return attr
}

func becomeSubreaper() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// A stat is what /proc tells of a process.
type stat struct {
	state   byte
	ppid    int
	pgrp    int
	threads int
	start   uint64 // clock ticks since boot
}

// ended: a process whose first thread has ended still has its ports and files
// while another of its threads is about to.
func (s stat) ended() bool { return (s.state == 'Z' || s.state == 'X') && s.threads <= 1 }

func procStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name, in parentheses, may hold anything.
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return stat{}, errors.New("no process name")
	}
	f := bytes.Fields(data[i+1:])
	if len(f) < 20 {
		return stat{}, errors.New("too few fields")
	}
	s := stat{state: f[0][0]}
	s.ppid, err = strconv.Atoi(string(f[1]))
	if err != nil {
		return stat{}, err
	}
	s.pgrp, err = strconv.Atoi(string(f[2]))
	if err != nil {
		return stat{}, err
	}
	s.threads, err = strconv.Atoi(string(f[17]))
	if err != nil {
		return stat{}, err
	}
	s.start, err = strconv.ParseUint(string(f[19]), 10, 64)
	return s, err
}

// startTime returns when a process started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	s, err := procStat(pid)
	if err == nil && s.ended() {
		err = os.ErrProcessDone
	}
	return s.start, err
}

var bootID = sync.OnceValue(func() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
})

func pids() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var ids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			ids = append(ids, pid)
		}
	}
	return ids
}

// markedProcesses returns the processes with the mark in their environment.
func markedProcesses(mark string) []int {
	want := []byte(markName + "=" + mark + "\x00")
	var marked []int
	for _, pid := range pids() {
		if pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(env, want) {
			marked = append(marked, pid)
		}
	}
	return marked
}

// orphans returns the children that the service left behind and this process
// adopted. What this process starts by itself is known, or is of its own
// process group.
func orphans() (running, ended []int) {
	self, pgrp := os.Getpid(), syscall.Getpgrp()
	for _, pid := range pids() {
		if ours.pids[pid] {
			continue
		}
		s, err := procStat(pid)
		switch {
		case err != nil || s.ppid != self || s.pgrp == pgrp:
		case s.ended():
			ended = append(ended, pid)
		default:
			running = append(running, pid)
		}
	}
	return running, ended
}

// killOrphans kills what the service left behind and reports whether there was anything.
func (r *OS) killOrphans() bool {
	ours.Lock()
	defer ours.Unlock()
	running, _ := orphans()
	for _, pid := range running {
		killOne(pid)
	}
	return len(running) > 0
}

var reaping sync.Once

// reap collects ended orphans, as long as this process runs. They come to the
// process and not to a runner, so one goroutine does it for all.
func (r *OS) reap() {
	reaping.Do(func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGCHLD)
		go func() {
			for range c {
				r.reapNow()
			}
		}()
	})
}

func (r *OS) reapNow() {
	ours.Lock()
	defer ours.Unlock()
	_, ended := orphans()
	for _, pid := range ended {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// executable returns a name that leads to the open file, whatever happens to
// its name in the meantime: a symlink to the descriptor, which the child has
// too until its exec, there perhaps as another number. The symlink's own name
// becomes the process's short name.
func (r *OS) executable(s Spec, fd uintptr) string {
	dir := filepath.Join(r.dir, "exec")
	mode := os.FileMode(0o700)
	if s.Cred != nil {
		// The service's user has to get there. What is in the folders stays unreadable.
		mode = 0o711
		if os.Chmod(r.dir, mode) != nil {
			return s.File
		}
	}
	if os.MkdirAll(dir, mode) != nil || os.Chmod(dir, mode) != nil {
		return s.File
	}
	link := filepath.Join(dir, filepath.Base(s.Name))
	_ = os.Remove(link) // from the start before
	if os.Symlink(fmt.Sprintf("/proc/self/fd/%d", fd), link) != nil {
		return s.File
	}
	return link
}

// executes reports whether a process runs the open file. A process that has
// ended already is taken for one that did.
func executes(pid int, file *os.File) bool {
	want, err := file.Stat()
	if err != nil {
		return true
	}
	got, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err != nil || os.SameFile(want, got)
}
