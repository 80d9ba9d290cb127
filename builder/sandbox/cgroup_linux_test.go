package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func read(t *testing.T, elems ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elems...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// What is written into the unified hierarchy, on files that only look like it:
// the server moves to a leaf, passes the controllers on, and each command gets
// a group with its limits.
func TestUnifiedFiles(t *testing.T) {
	root := t.TempDir()
	unit := filepath.Join(root, "system.slice", "upkeep-build.service")
	if err := os.MkdirAll(unit, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, self := range []string{"0::/system.slice/upkeep-build.service\n", "0::/system.slice/upkeep-build.service/upkeep-server\n"} { // the second after a restart in place
		c, err := openCgroupsIn(root, strings.NewReader(self))
		if err != nil {
			t.Fatal(err)
		}
		if !c.v2 || c.memory != unit || c.pids != unit || c.cpu != unit {
			t.Errorf("%+v", c)
		}
		if got := read(t, unit, "cgroup.subtree_control"); got != "+memory +pids" {
			t.Errorf("controllers %q", got)
		}
		if got := read(t, unit, "upkeep-server", "cgroup.procs"); got != strconv.Itoa(os.Getpid()) {
			t.Errorf("in the leaf: %q", got)
		}
		g, err := c.create(7, Limits{Memory: 1 << 20, Processes: 9})
		if err != nil {
			t.Fatal(err)
		}
		dir := g.dirs[0]
		if len(g.dirs) != 3 || g.dirs[1] != dir || g.dirs[2] != dir || filepath.Dir(dir) != unit {
			t.Errorf("groups %q", g.dirs)
		}
		if m, s, p := read(t, dir, "memory.max"), read(t, dir, "memory.swap.max"), read(t, dir, "pids.max"); m != "1048576" || s != "0" || p != "9" {
			t.Errorf("limits %q %q %q", m, s, p)
		}
		for text, want := range map[string]bool{"low 0\noom 3\noom_kill 0\noom_group_kill 0\n": false, "oom 1\noom_kill 2\n": true, "": false} {
			if err := os.WriteFile(filepath.Join(dir, "memory.events"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := g.outOfMemory(); got != want {
				t.Errorf("%q: out of memory %v", text, got)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte("usage_usec 1500000\nuser_usec 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if d, ok := g.cpu(); !ok || d != 1500*time.Millisecond {
			t.Errorf("processor time %v, %v", d, ok)
		}
		if err := g.add(os.Getpid()); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil { // these are files, which a real group's are not
			t.Fatal(err)
		}
	}
	if _, err := openCgroupsIn(root, strings.NewReader("1:cpu:/\n")); err == nil {
		t.Error("a machine without the controllers is taken")
	}
}

// A real unified hierarchy, mounted for the test beside what there is: groups
// are made, count processor time, and what is left in them ends with them. Its
// limits need controllers that such a mount has only where nobody else uses them.
func TestUnifiedMount(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Skipf("mounting the unified hierarchy: %v", err) // also in a container of the CI
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	unit, err := os.MkdirTemp(root, "upkeep-test-")
	if err != nil {
		t.Skipf("making a control group: %v", err)
	}
	defer os.Remove(unit)
	c := &cgroups{v2: true, memory: unit, pids: unit, cpu: unit}
	g, err := c.create(1, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.remove()
	// A shell that works and leaves a child of another session behind.
	cmd := exec.Command("/bin/sh", "-c", `read go; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; setsid sleep 1000 >/dev/null 2>&1 & echo done; exec sleep 1000`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.add(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if d, ok := g.cpu(); !ok || d <= 0 {
		t.Errorf("processor time %v, %v", d, ok)
	}
	if g.outOfMemory() {
		t.Error("out of memory")
	}
	if n := len(strings.Fields(read(t, g.dirs[0], "cgroup.procs"))); n < 2 {
		t.Errorf("%d processes", n)
	}
	if _, err := os.Stat(filepath.Join(g.dirs[0], "cgroup.kill")); err != nil {
		_ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
		t.Skip("this kernel has no cgroup.kill")
	}
	reaped := make(chan error, 1)
	go func() { reaped <- cmd.Wait() }()
	g.remove()
	<-reaped // it was killed
	for range 3000 {
		g.remove()
		if _, err := os.Stat(g.dirs[0]); err != nil {
			return
		}
	}
	t.Errorf("the group is still there, with %q", read(t, g.dirs[0], "cgroup.procs"))
}

// The limits of a real unified hierarchy, on a machine that has the controllers
// there: what takes more memory is killed and that is seen, and no more
// processes can be made.
func TestUnifiedLimits(t *testing.T) {
	c, err := openCgroups()
	if err != nil {
		t.Skip(err) // TestMemory fails then if it is not meant to be so
	}
	if !c.v2 {
		t.Skip("this machine's memory and pids controllers are in v1")
	}
	run := func(seq int64, l Limits, script string) (g *group, out string) {
		g, err := c.create(seq, l)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		cmd.Stdout, cmd.Stderr = &b, &b
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.add(cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // how it ended is in the group
		return g, b.String()
	}
	g, out := run(9001, Limits{Memory: 32 << 20, Processes: 50}, `x=$(head -c 200000000 /dev/zero | tr '\0' x); echo survived`)
	if !g.outOfMemory() || strings.Contains(out, "survived") {
		t.Errorf("memory: out of it %v: %q", g.outOfMemory(), out)
	}
	g.remove()
	g, out = run(9002, Limits{Memory: 64 << 20, Processes: 5}, `i=0; while [ $i -lt 20 ]; do i=$((i+1)); sleep 1000 >/dev/null 2>&1 & done; echo survived`)
	if n := len(strings.Fields(read(t, g.dirs[0], "cgroup.procs"))); n > 5 || strings.Contains(out, "survived") {
		t.Errorf("processes: %d; %q", n, out)
	}
	if g.outOfMemory() {
		t.Error("out of memory")
	}
	g.remove()
	if _, err := os.Stat(g.dirs[0]); err == nil {
		t.Errorf("the group is still there, with %q", read(t, g.dirs[0], "cgroup.procs"))
	}
}

// What is left in a group ends with it, whatever became of the process that was
// to take it along.
func TestGroupEnds(t *testing.T) {
	c, err := openCgroups()
	if err != nil {
		t.Skip(err) // TestMemory fails then if it is not meant to be so
	}
	g, err := c.create(102, Limits{Processes: 16})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "read go; sleep 100000 & echo there; exec sleep 100000")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if err := g.add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // the group is empty only when somebody has waited
	g.remove()
	for _, dir := range g.dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there, with %q", dir, read(t, dir, "cgroup.procs"))
		}
	}
	if t.Failed() {
		return
	}
	if err := <-done; cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the command ended with %v", err)
	}
}
