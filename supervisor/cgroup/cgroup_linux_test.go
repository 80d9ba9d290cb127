package cgroup

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPlace(t *testing.T) {
	const v2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
	const hybrid = "30 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"
	for name, c := range map[string]struct{ mounts, own, want string }{
		"plain":              {v2, "0::/system.slice/upkeep@a.service\n", "/sys/fs/cgroup/system.slice/upkeep@a.service"},
		"root":               {v2, "0::/\n", "/sys/fs/cgroup"},
		"hybrid":             {hybrid, "4:memory:/x\n0::/u.service\n", "/sys/fs/cgroup/unified/u.service"},
		"version 1 alone":    {hybrid, "4:memory:/x\n", ""},
		"bound elsewhere":    {"1 2 0:3 /a\\040b /c\\040g rw - cgroup2 x rw\n", "0::/a b/u\n", "/c g/u"},
		"not below its root": {"1 2 0:3 /other /cg rw - cgroup2 x rw\n", "0::/u\n", ""},
		"of another space":   {v2, "0::/../x.service\n", ""},
		"gone":               {v2, "0::/x.service (deleted)\n", ""},
		"garbage":            {"a b c - cgroup2\n- - -\n", "0::/x\n", ""},
	} {
		got, err := place(c.mounts, c.own)
		if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, ErrNone) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// tree returns a new group of the version 2 hierarchy, wherever it is mounted.
func tree(t *testing.T) string {
	t.Helper()
	missing := func(why string) {
		t.Helper()
		if os.Getenv("UPKEEP_TEST_FULL") == "1" && os.Getuid() == 0 {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		missing(err.Error())
	}
	at := ""
	for line := range strings.Lines(string(data)) {
		if before, after, ok := strings.Cut(line, " - "); ok && strings.HasPrefix(after, "cgroup2 ") {
			at = unescape(strings.Fields(before)[4])
		}
	}
	if at == "" {
		at = t.TempDir()
		if err := unix.Mount("none", at, "cgroup2", 0, ""); err != nil {
			missing("no cgroup2 hierarchy, and none can be mounted (it needs root): " + err.Error())
		}
		t.Cleanup(func() { _ = unix.Unmount(at, 0) })
	}
	dir, err := os.MkdirTemp(at, "upkeep-test-")
	if err != nil {
		missing("no group can be made (it needs root): " + err.Error())
	}
	t.Cleanup(func() { removeTree(dir) })
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		missing("the kernel has no cgroup.kill")
	}
	return dir
}

// A user's systemd marks nothing: what tells is the subgroup of our own unit.
func TestSubgroup(t *testing.T) {
	base := tree(t)
	for _, tc := range []struct {
		unit, sub string
		uid       int
		ok        bool
	}{
		{"upkeep@a.service", "supervisor", os.Geteuid(), true},
		{"upkeep@b.service", "supervisor", os.Geteuid() + 1, false},
		{"upkeep@c.service", "init", os.Geteuid(), false},
		{"d.scope", "supervisor", os.Geteuid(), false},
	} {
		unit := filepath.Join(base, tc.unit)
		own := filepath.Join(unit, tc.sub)
		if err := os.MkdirAll(own, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(unit, tc.uid, -1); err != nil {
			t.Fatal(err)
		}
		g, err := delegated(own)
		if (err == nil) != tc.ok || tc.ok && g.dir != unit {
			t.Errorf("%s/%s of user %d: %+v, %v", tc.unit, tc.sub, tc.uid, g, err)
		}
	}
}

func TestGroup(t *testing.T) {
	unit := tree(t)
	own := filepath.Join(unit, "supervisor")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := delegated(own); !errors.Is(err, ErrNone) {
		t.Fatalf("a group that nobody delegated is taken: %v", err)
	}
	if err := unix.Setxattr(unit, "user.delegate", []byte("1"), 0); err != nil {
		if err = unix.Setxattr(unit, "trusted.delegate", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	g, err := delegated(own)
	if err != nil || g.dir != unit {
		t.Fatalf("got %+v, %v", g, err)
	}
	dir, err := g.Make()
	if err != nil {
		t.Fatal(err)
	}
	if list := g.Left(); len(list) != 0 {
		t.Errorf("an empty group is left over: %q", list)
	}

	// A child in it starts another one, which leaves session and parent.
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command("sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !Has(dir, pid) || !Has(dir, cmd.Process.Pid) || Has(dir, os.Getpid()) || Has(own, pid) || Has(dir, 1<<30) {
		t.Error("what belongs to the group is not known")
	}
	if list := g.Left(); len(list) != 1 || list[0] != dir {
		t.Errorf("groups with processes: %q", list)
	}
	if err := Kill(dir); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if err := syscall.Kill(pid, 0); err == nil {
		// A zombie of whoever adopted it is gone from the group all the same.
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), ") X ") {
			t.Errorf("process %d lives: %s", pid, stat)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is still there: %v", err)
	}
	if err := Kill(dir); err != nil {
		t.Errorf("killing what is gone: %v", err)
	}
}
