package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Group is the control group that is delegated to the unit.
type Group struct{ dir string }

// Delegated returns the group that was delegated to the unit of this process.
func Delegated() (*Group, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for control groups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("looking for control groups: %w", err)
	}
	dir, err := place(string(mounts), string(own))
	if err != nil {
		return nil, err
	}
	return delegated(dir)
}

// delegated looks at a process's own group and the one above it, which is the
// unit's when DelegateSubgroup= put the process into a group of its own.
func delegated(dir string) (*Group, error) {
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if isDelegated(d) || d != dir && isSubgroup(dir) {
			if _, err := os.Stat(filepath.Join(d, "cgroup.kill")); err != nil {
				return nil, fmt.Errorf("%w: the kernel has no cgroup.kill (Linux 5.14)", ErrNone)
			}
			return &Group{d}, nil
		}
	}
	return nil, ErrNone
}

// isDelegated reads the mark of systemd.exec(5), Delegate=.
func isDelegated(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		n, err := unix.Getxattr(dir, name, value[:])
		if err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// isSubgroup recognises the group of DelegateSubgroup= in our unit, which there
// is only with Delegate=yes: a user's systemd marks nothing that it delegates.
func isSubgroup(dir string) bool {
	unit := filepath.Dir(dir)
	var st unix.Stat_t
	return filepath.Base(dir) == subgroup && strings.HasSuffix(unit, ".service") &&
		unix.Stat(unit, &st) == nil && int(st.Uid) == os.Geteuid() && unix.Access(unit, unix.W_OK) == nil
}

// place returns the folder of a process's group in the version 2 hierarchy,
// from its mountinfo and cgroup files (proc(5), cgroups(7)).
func place(mountinfo, cgroup string) (string, error) {
	path := ""
	for line := range strings.Lines(cgroup) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = p
		}
	}
	if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, " (deleted)") || strings.HasPrefix(path, "/..") {
		return "", ErrNone
	}
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		dash := -1
		for i, w := range f {
			if w == "-" {
				dash = i
				break
			}
		}
		if dash < 6 || dash+1 >= len(f) || f[dash+1] != "cgroup2" {
			continue
		}
		root, at := unescape(f[3]), unescape(f[4])
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		return filepath.Join(at, rel), nil
	}
	return "", ErrNone
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Make makes an empty group for a run of the service and returns its folder.
// Groups that earlier runs left empty are removed.
func (g *Group) Make() (string, error) {
	left, _ := filepath.Glob(filepath.Join(g.dir, prefix+"*"))
	for _, dir := range left {
		_ = os.Remove(dir) // one that isn't empty stays
	}
	dir, err := os.MkdirTemp(g.dir, prefix)
	if err != nil {
		return "", fmt.Errorf("making a control group for the service: %w", err)
	}
	return dir, nil
}

// Left returns the groups of earlier runs that still have processes, such as
// those of a service whose supervisor was killed.
func (g *Group) Left() []string {
	var list []string
	dirs, _ := filepath.Glob(filepath.Join(g.dir, prefix+"*"))
	for _, dir := range dirs {
		if populated(dir) {
			list = append(list, dir)
		}
	}
	return list
}

// Has reports whether a process is in the group or one below it. The service
// may have made groups of its own there.
func Has(dir string, pid int) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	at, err := place(string(mounts), string(own))
	return err == nil && (at == dir || strings.HasPrefix(at, dir+"/"))
}

// killTime bounds the wait for what was killed: a process in uninterruptible
// sleep (a dead disk) cannot be ended by anybody.
const killTime = 10 * time.Second

// Kill ends everything in the group, waits until it is gone, and removes the
// group. One that isn't there has nothing in it.
func Kill(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ending the control group %s: %w", filepath.Base(dir), err)
	}
	if err := waitEmpty(dir); err != nil {
		return fmt.Errorf("ending the control group %s: %w", filepath.Base(dir), err)
	}
	removeTree(dir)
	return nil
}

// waitEmpty waits for the kernel to say that no process is left: the events
// file becomes readable (POLLPRI) with each change.
func waitEmpty(dir string) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()
	deadline := time.Now().Add(killTime)
	for {
		if !readPopulated(f) {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("a process in it is still there %v after it was killed", killTime)
		}
		p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(p, int(min(left, time.Second).Milliseconds())+1); err != nil && err != unix.EINTR {
			return err
		}
	}
}

func populated(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return false
	}
	defer f.Close()
	return readPopulated(f)
}

func readPopulated(f *os.File) bool {
	if _, err := f.Seek(0, 0); err != nil {
		return true
	}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if sc.Text() == "populated 0" {
			return false
		}
	}
	return true
}

// removeTree removes an empty group with the groups that the service made in it.
func removeTree(dir string) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir) // it is empty, and counted as left over otherwise
}
