//go:build unix

package supervisor

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

// laterTime is when a bad version of upkeep goes wrong that doesn't at once: it
// answers by then.
const laterTime = 300 * time.Millisecond

// misbehaveLater is what a version does that was well on trial.
func misbehaveLater(what string) {
	end := func(f func()) { time.AfterFunc(laterTime, f) }
	switch what {
	case "exit1":
		os.Exit(1)
	case "hang":
		select {}
	case "crash":
		end(func() { os.Exit(3) })
	case "stuck":
		end(func() { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) })
	case "with the service":
		end(func() {
			o := outside{bench: &bench{addr: os.Getenv(envOfService)}}
			for _, pid := range o.services() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})
	}
}

// envOfService tells a bad upkeep where its service listens.
const envOfService = "UPKEEP_TEST_OF_SERVICE"

// upkeeps lists the running supervisors of the folder.
func (o *outside) upkeeps() []int {
	var found []int
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		o.t.Fatal(err)
	}
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err == nil && bytes.Contains(env, []byte(envSupervisor+"="+o.dir+"\x00")) && !bytes.Contains(env, []byte(envService+"=")) {
			var pid int
			fmt.Sscan(filepath.Base(filepath.Dir(name)), &pid)
			found = append(found, pid)
		}
	}
	return alive(found)
}

// endAll ends whatever is left of the supervisors.
func (o *outside) endAll() {
	for _, pid := range append(o.upkeeps(), o.services()...) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// A version that is well on trial and fails in command is replaced by the one
// before, which stood by: that goes on with the very process of the service, and
// nobody who asks the service notices. It isn't tried a second time.
func TestStandby(t *testing.T) {
	for _, tc := range []struct {
		behaviour string
		restarts  bool // the service ends too
	}{
		{"exit1", false},
		{"crash", false},
		{"hang", false},
		{"stuck", false},
		{"with the service", true},
	} {
		t.Run(tc.behaviour, func(t *testing.T) {
			t.Parallel()
			b := newSelfBench(t, "v0.1.1=later:"+strings.ReplaceAll(tc.behaviour, " ", "_"))
			b.env = append(b.env, envOfService+"="+b.addr)
			b.order.Self = append(b.order.Self, "v0.1.1")
			b.order.Config.Self.Probation = config.Duration(2 * time.Second)
			b.order.Hasty = "command"
			t.Cleanup(b.endAll)
			b.begin()
			main := b.cmd.Process.Pid
			s := b.await("the version before", func(s Status) bool {
				return s.Self.LastResult != nil && s.Self.Update == nil && s.Self.Version == "v0.1.0" && s.Service.Running && b.serves() == "v1.0.0"
			})
			if s.Self.Pid == main {
				t.Errorf("upkeep is still process %d\n%s", main, b.out)
			}
			if kept := s.Service.Pid == b.service; kept == tc.restarts || len(b.services()) != 1 || len(b.upkeeps()) != 1 {
				t.Errorf("the service is process %d, was %d; services %v, upkeeps %v\n%s", s.Service.Pid, b.service, b.services(), b.upkeeps(), b.out)
			}
			if n := b.unserved.Load(); n != 0 && !tc.restarts {
				t.Errorf("%d requests to the service failed", n)
			}
			r := s.Self.LastResult
			if r.Result != ResultRolledBack || !strings.Contains(r.Reason, "in command it") || b.selfTarget() != "v0.1.0" {
				t.Errorf("result %+v, link to %s", r, b.selfTarget())
			}
			if len(s.Self.Skips) != 1 || s.Self.Skips[0].Version != "v0.1.1" || s.Events[0].Kind != "self_rolled_back" {
				t.Errorf("skips %+v, events %+v", s.Self.Skips, s.Events)
			}
			if tc.restarts {
				b.stop()
			} else if !strings.Contains(strings.Join(b.client.Logs(100), "\n"), fmt.Sprint("process ", b.service)) {
				t.Errorf("the service's output is lost: %q", b.client.Logs(100))
			}
			// Whoever starts upkeep again has it in the process that was started.
			old := s.Self.Pid
			if tc.behaviour == "crash" {
				b.order.Self, b.order.Hasty = append(b.order.Self, "v0.1.2"), "" // which is well
			}
			b.run()
			s = b.await("relief", func(s Status) bool { return s.Self.Pid == b.cmd.Process.Pid && s.Service.Running })
			waitFor(t, "end of the one that gave way", func() bool { return len(alive([]int{old})) == 0 })
			if !tc.restarts && (s.Service.Pid != b.service || b.unserved.Load() != 0) || len(b.services()) != 1 {
				t.Errorf("the service is process %d, was %d, of %v, after %d failed requests\n%s", s.Service.Pid, b.service, b.services(), b.unserved.Load(), b.out)
			}
			if tc.behaviour == "crash" {
				s = b.await("next update", func(s Status) bool { return s.Self.Version == "v0.1.2" && s.Self.Update == nil })
				if s.Service.Pid != b.service || s.Self.Pid != b.cmd.Process.Pid || b.unserved.Load() != 0 {
					t.Errorf("the service is process %d, was %d; upkeep is %d, after %d failed requests\n%s", s.Service.Pid, b.service, s.Self.Pid, b.unserved.Load(), b.out)
				}
			}
			// It supervises in every respect: the end of the service is seen ...
			b.stop()
			if err := syscall.Kill(s.Service.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s = b.await("restart", func(n Status) bool {
				return n.Service.Running && n.Service.Pid != s.Service.Pid && b.serves() == "v1.0.0"
			})
			// ... and a stop stops both.
			if err := syscall.Kill(s.Self.Pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "end of all", func() bool { return len(b.services()) == 0 && len(b.upkeeps()) == 0 })
		})
	}
}

// A stop while a new upkeep proves itself stops the service and both versions.
func TestStandbyStopped(t *testing.T) {
	t.Parallel()
	b := newSelfBench(t, "")
	b.order.Self = append(b.order.Self, "v0.1.1")
	b.order.Config.Self.Probation = config.Duration(2 * time.Second) // on trial, and again in command
	t.Cleanup(b.endAll)
	b.begin()
	b.await("command", func(s Status) bool { return s.Self.Version == "v0.1.1" })
	b.stop()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.ends()
	if st := b.cmd.ProcessState; st.ExitCode() != 0 {
		t.Errorf("it ended: %v\n%s", st, b.out)
	}
	waitFor(t, "end of all", func() bool { return len(b.services()) == 0 && len(b.upkeeps()) == 0 })
}

// A stop at any instant of an exec stops the service and upkeep: nothing is left.
func TestStopInExec(t *testing.T) {
	needLinux(t)
	n := 4
	if os.Getenv("UPKEEP_TEST_LONG") != "" {
		n = 200
	}
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := newSelfBench(t, "")
			b.order.Self = append(b.order.Self, "v0.1.1")
			b.order.Config.Self.Probation = config.Duration(100 * time.Millisecond)
			t.Cleanup(b.endAll)
			b.run()
			waitFor(t, "handing over", func() bool { return strings.Contains(b.out.String(), "state=starting") })
			time.Sleep(time.Duration(rand.Int64N(int64(150 * time.Millisecond)))) // the fault is an instant
			if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			b.ends()
			waitFor(t, "end of all", func() bool { return len(b.services()) == 0 && len(b.upkeeps()) == 0 })
			t.Log(b.cmd.ProcessState)
		})
	}
}

// The version that stood by is deaf at no instant of taking over: a stop that
// reaches it then stops the service and it.
func TestStopInTakeOver(t *testing.T) {
	n := 4
	if os.Getenv("UPKEEP_TEST_LONG") != "" {
		n = 200
	}
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := newSelfBench(t, "v0.1.1=later:crash")
			b.order.Self = append(b.order.Self, "v0.1.1")
			b.order.Config.Self.Probation = config.Duration(time.Second)
			t.Cleanup(b.endAll)
			b.run()
			b.ends()                                                             // the new version, in command
			time.Sleep(time.Duration(rand.Int64N(int64(50 * time.Millisecond)))) // the fault is an instant
			for _, pid := range b.upkeeps() {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
			waitFor(t, "end of all", func() bool { return len(b.services()) == 0 && len(b.upkeeps()) == 0 })
		})
	}
}
