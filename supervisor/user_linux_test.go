package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	usePasswd = func(file string) {
		// This process has mounts of its own.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			panic(err)
		}
		if err := unix.Mount(file, "/etc/passwd", "", unix.MS_BIND, ""); err != nil {
			panic(err)
		}
	}
}

// enterable lets the service's user reach the folders of a bench.
func (b *bench) enterable() {
	b.t.Helper()
	for _, dir := range []string{b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
}

// statusField is what the kernel tells of a process in one line of its status.
func statusField(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("process %d has no %s", pid, name)
	return ""
}

// The service's user is deleted while upkeep runs: the service, an update of it
// and its restart go on as that number, and status says what is wrong.
func testUserDeleted(t *testing.T) {
	needRoot(t)
	try := exec.Command("true")
	try.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := try.Run(); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatalf("a process can't have mounts of its own, and UPKEEP_TEST_FULL is set: %v", err)
		}
		t.Skipf("needs the right to have mounts of its own: %v", err)
	}
	t.Parallel()
	const root, service = "root:x:0:0:root:/root:/bin/sh\n", "hello:x:54321:54322:hello:/:/bin/false\n"
	o := newOutside(t, "")
	o.enterable()
	o.order.Passwd = filepath.Join(t.TempDir(), "passwd")
	passwd := func(text string) {
		t.Helper()
		// In place: it is the file that is mounted.
		if err := os.WriteFile(o.order.Passwd, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	passwd(root + service)
	o.order.Config.Process.User = "hello"
	o.command = func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		return cmd
	}
	o.order.Config.Updates.Paused = true
	o.run()
	client := NewClient(filepath.Join(o.order.Config.State, "control.sock"))
	do := func(a Action) {
		t.Helper()
		if err := client.Do(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	as := func(s Status) {
		t.Helper()
		if got := statusField(t, s.Service.Pid, "Uid"); got != "54321 54321 54321 54321" {
			t.Errorf("%s runs as %s", s.Service.Version, got)
		}
		if got := statusField(t, s.Service.Pid, "Gid"); got != "54322 54322 54322 54322" {
			t.Errorf("%s runs in %s", s.Service.Version, got)
		}
	}
	s := o.settled("first start", func(s Status) bool { return s.Plan.Candidate != nil })
	as(s)
	if s.Code == CodeFailing || s.Service.Warning != "" {
		t.Errorf("status %s %q, warning %q", s.Code, s.Summary, s.Service.Warning)
	}

	passwd(root)
	told := func(s Status) {
		t.Helper()
		if want := `service's user "hello" is no longer on this machine`; s.Code != CodeFailing || !strings.Contains(s.Summary, want) || !strings.Contains(s.Service.Warning, want) {
			t.Errorf("status %s %q, warning %q; want %q", s.Code, s.Summary, s.Service.Warning, want)
		}
		as(s)
	}
	told(o.settled("deleted user", anyStatus))
	do(Action{Verb: VerbUpdate, By: "test"})
	s = o.settled("update", func(s Status) bool { return s.Service.Version == "v1.0.1" && s.LastResult != nil && s.Update == nil })
	told(s)
	if err := syscall.Kill(s.Service.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = o.settled("restart", func(s Status) bool { return s.Service.Restarts == 1 })
	told(s)
	if s.Service.Version != "v1.0.1" {
		t.Errorf("%s runs", s.Service.Version)
	}
	// Somebody else has the name by now: nothing is guessed either.
	passwd(root + strings.Replace(service, "54321", "54444", 1))
	s = o.settled("another user of the name", anyStatus)
	if want := `"hello" is 54444 by now`; s.Code != CodeFailing || !strings.Contains(s.Summary, want) {
		t.Errorf("status %s %q; want %q", s.Code, s.Summary, want)
	}
	as(s)
	passwd(root + service)
	if s = o.settled("user again", anyStatus); s.Code == CodeFailing {
		t.Errorf("status %s %q", s.Code, s.Summary)
	}
	o.kill()
}

// The service runs as the user, in the groups, with the capabilities and within
// the limits of the configuration, and with no others: the kernel says so.
func testRunsAs(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		name    string
		process func(p *ProcessConfig)
		want    map[string]string
		limits  []string
	}{
		{"user alone", func(p *ProcessConfig) { p.User, p.Groups = "54321", []string{"54322"} }, map[string]string{
			"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": "54322",
			"CapAmb": "0000000000000000", "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000",
		}, nil},
		{"groups and capabilities", func(p *ProcessConfig) {
			p.User, p.Groups, p.AmbientCap = "54321", []string{"54322", "54323", "54324"}, []string{"net_bind_service", "CAP_SYS_NICE"}
		}, map[string]string{
			"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": "54322 54323 54324",
			"CapAmb": "0000000000800400", "CapEff": "0000000000800400", "CapPrm": "0000000000800400",
		}, nil},
		// A Go program raises its soft limit of open files by itself, so that is the hard one here.
		{"limits", func(p *ProcessConfig) { p.Limits = []string{"nofile=654", "core=0:1048576", "stack=4194304:infinity"} }, map[string]string{
			"Uid": "0 0 0 0", "CapAmb": "0000000000000000",
		}, []string{"Max open files 654 654 files", "Max core file size 0 1048576 bytes", "Max stack size 4194304 unlimited bytes"}},
		{"all", func(p *ProcessConfig) {
			p.User, p.Groups, p.AmbientCap, p.Limits = "54321", []string{"54322"}, []string{"net_bind_service"}, []string{"nofile=654", "nproc=111"}
		}, map[string]string{
			"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": "54322", "CapAmb": "0000000000000400", "CapEff": "0000000000000400",
		}, []string{"Max open files 654 654 files", "Max processes 111 111 processes"}},
	} {
		// With sockets that are kept the service is started through a program between
		// fork and exec, and without them directly.
		for _, handover := range []string{HandoverAuto, HandoverRestart} {
			t.Run(tc.name+", "+handover, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, "")
				b.enterable()
				b.cfg.Process.Handover = handover
				tc.process(&b.cfg.Process)
				b.start()
				check := func(s Status) {
					t.Helper()
					for field, want := range tc.want {
						if got := statusField(t, s.Service.Pid, field); got != want {
							t.Errorf("%s: %s is %q; want %q", s.Service.Version, field, got, want)
						}
					}
					data, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.Service.Pid))
					if err != nil {
						t.Fatal(err)
					}
					var lines []string
					for line := range strings.Lines(string(data)) {
						lines = append(lines, strings.Join(strings.Fields(line), " "))
					}
					for _, want := range tc.limits {
						if !slices.Contains(lines, want) {
							t.Errorf("%s: no %q in its limits:\n%s", s.Service.Version, want, data)
						}
					}
				}
				check(b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Running }))
				b.publish("v1.0.1")
				s := b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil && s.LastResult != nil })
				check(s)
				// Its binary is nothing that it could write, and status says nothing else.
				if s.Service.Warning != "" || s.Code != CodeCurrent {
					t.Errorf("status %s %q, warning %q", s.Code, s.Summary, s.Service.Warning)
				}
				b.stop()
			})
		}
	}
}
