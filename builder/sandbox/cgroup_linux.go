package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups makes one group for each command: below the server's own groups, in
// the unified hierarchy (v2), or in the memory and pids hierarchies (v1).
type cgroups struct {
	v2     bool
	memory string // folder below which groups are made
	pids   string // the same as memory in v2
	cpu    string // counts processor time; "" if it is not there
}

// A group holds one command's processes. A nil group sets no limits.
type group struct {
	c    *cgroups
	dirs []string
}

const cgroupRoot = "/sys/fs/cgroup"

// openCgroups finds where groups can be made and tries it.
func openCgroups() (*cgroups, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("there are no control groups: %w", err)
	}
	defer f.Close()
	return openCgroupsIn(cgroupRoot, f)
}

// openCgroupsIn does so for the hierarchies below root; self is what
// /proc/self/cgroup says.
func openCgroupsIn(root string, self io.Reader) (_ *cgroups, err error) {
	own := map[string]string{} // controller → path; "" is v2
	for sc := bufio.NewScanner(self); sc.Scan(); {
		_, rest, _ := strings.Cut(sc.Text(), ":")
		names, path, _ := strings.Cut(rest, ":")
		for name := range strings.SplitSeq(names, ",") {
			own[name] = path
		}
	}
	c := &cgroups{}
	if p, ok := own["memory"]; ok && own["pids"] != "" {
		c.memory = v1Dir(root, "memory", p)
		c.pids = v1Dir(root, "pids", own["pids"])
		if p, ok := own["cpuacct"]; ok {
			c.cpu = v1Dir(root, "cpuacct", p)
		}
	} else if p, ok := own[""]; ok {
		c.v2 = true
		if c.memory, err = openV2(filepath.Join(root, p)); err != nil {
			return nil, err
		}
		c.pids, c.cpu = c.memory, c.memory
	} else {
		return nil, errors.New("the memory and pids controllers are not there")
	}
	c.clean()
	g, err := c.create(0, Limits{Memory: 64 << 20, Processes: 16})
	if err != nil {
		return nil, err
	}
	g.remove()
	return c, nil
}

// v1Dir returns the folder of the server's group in a v1 hierarchy. In a
// container the path may be that of the host: the root is the nearest then.
func v1Dir(root, controller, path string) string {
	dir := filepath.Join(root, controller, path)
	if _, err := os.Stat(dir); err != nil {
		return filepath.Join(root, controller)
	}
	return dir
}

// openV2 prepares the server's group for children with limits: a group with
// processes of its own can't have them, so the server moves to a leaf.
func openV2(dir string) (string, error) {
	if filepath.Base(dir) == "upkeep-server" {
		dir = filepath.Dir(dir) // a server before this one moved there
	}
	leaf := filepath.Join(dir, "upkeep-server")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("can't make a control group: %w", err)
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return "", fmt.Errorf("can't enter a control group of its own: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids"), 0); err != nil {
		return "", fmt.Errorf("can't pass on the memory and pids controllers: %w", err)
	}
	return dir, nil
}

// clean removes empty groups of servers that were killed.
func (c *cgroups) clean() {
	for _, parent := range []string{c.memory, c.pids, c.cpu} {
		names, err := filepath.Glob(filepath.Join(parent, groupPrefix+"*"))
		if err != nil || parent == "" {
			continue
		}
		for _, name := range names {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), groupPrefix), "-")
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(name) // one that is not empty stays
			}
		}
	}
}

const groupPrefix = "upkeep-build-"

func (c *cgroups) create(seq int64, l Limits) (*group, error) {
	if c == nil {
		return nil, nil
	}
	name := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), seq)
	g := &group{c: c}
	for _, parent := range []string{c.memory, c.pids, c.cpu} {
		if parent == "" {
			continue
		}
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			g.remove()
			return nil, fmt.Errorf("can't make a control group: %w", err)
		}
		g.dirs = append(g.dirs, dir)
	}
	set := func(dir, file string, v int64) error {
		if v == 0 {
			return nil
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(v, 10)), 0); err != nil {
			return fmt.Errorf("can't limit a control group: %w", err)
		}
		return nil
	}
	memFile := "memory.limit_in_bytes"
	if c.v2 {
		memFile = "memory.max"
	}
	if err := errors.Join(set(g.dirs[0], memFile, l.Memory), set(g.dirs[1], "pids.max", l.Processes)); err != nil {
		g.remove()
		return nil, err
	}
	if c.v2 && l.Memory > 0 {
		// The limit is of memory alone; not every kernel counts swap.
		_ = os.WriteFile(filepath.Join(g.dirs[0], "memory.swap.max"), []byte("0"), 0)
	}
	return g, nil
}

func (g *group) add(pid int) error {
	if g == nil {
		return nil
	}
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("putting the command into its control group: %w", err)
		}
	}
	return nil
}

// cpu returns the processor time of the group's processes.
func (g *group) cpu() (time.Duration, bool) {
	if g == nil || g.c.cpu == "" {
		return 0, false
	}
	dir := g.dirs[len(g.dirs)-1]
	if !g.c.v2 {
		data, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage"))
		n, err2 := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		return time.Duration(n), err == nil && err2 == nil
	}
	data, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "usage_usec "); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			return time.Duration(n) * time.Microsecond, err == nil
		}
	}
	return 0, false
}

// outOfMemory reports whether the kernel ended a process of the group.
func (g *group) outOfMemory() bool {
	if g == nil {
		return false
	}
	file := "memory.oom_control"
	if g.c.v2 {
		file = "memory.events"
	}
	data, err := os.ReadFile(filepath.Join(g.dirs[0], file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// remove ends what is left in the group and deletes it. Its last processes may
// need a moment to be gone.
func (g *group) remove() {
	if g == nil {
		return
	}
	for _, dir := range slices.Compact(slices.Clone(g.dirs)) { // one in the unified hierarchy
		for range 500 { // five seconds, on a machine with much else to do
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			g.kill()
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// kill ends the group's processes. Bubblewrap ends with its parent only from the
// moment on when it has asked the kernel for that.
func (g *group) kill() {
	if g.c.v2 && len(g.dirs) > 0 && os.WriteFile(filepath.Join(g.dirs[0], "cgroup.kill"), []byte("1"), 0) == nil {
		return // there since Linux 5.14
	}
	if len(g.dirs) > 1 {
		_ = os.WriteFile(filepath.Join(g.dirs[1], "pids.max"), []byte("0"), 0) // none may start another
	}
	for _, dir := range g.dirs {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
	}
}
