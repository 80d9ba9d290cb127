//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/state"
)

// TestFaults is the table of faults in docs/supervisor.md: whatever happens,
// the old or the new version runs in the end, complete and verified, and
// status and metrics tell the truth.
func TestFaults(t *testing.T) {
	for _, f := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"SIGKILL at every boundary of the journal", testKillAtEveryBoundary},
		{"SIGKILL at random instants", testKillAtRandom},
		{"SIGKILL twice in the same probation", testKilledTwice},
		{"power loss at every step", testPowerLoss},
		{"state damaged", testDamagedState},
		{"disk full", testDiskFull},
		{"disk full at each write", testEachWrite},
		{"real disk full or read-only", testRealDisk},
		{"state folder can't be written", testReadOnly},
		{"new version misbehaves", testBadVersion},
		{"new binary can't be executed", testNotExecutable},
		{"binary exchanged after verification", testExchanged},
		{"kept binary changed on disk", testKeptChanged},
		{"service leaves something behind", testLeftovers},
		{"stop in each state", testStopInEachState},
		{"builder down, then up", testBuilderDown},
		{"crash after probation", testCrashLater},
		{"link can't be put back", testLinkStuck},
		{"discovery lies", testDiscoveryLies},
		{"service's user is gone", testNoUser},
		{"service's user is deleted while it runs", testUserDeleted},
		{"user, groups, capabilities and limits", testRunsAs},
		{"configuration goes wrong", testReload},
		{"hook says not now, fails, hangs", testHooks},
	} {
		t.Run(f.name, f.test)
	}
}

// Without a state folder there are no updates, and there is a service.
func testReadOnly(t *testing.T) {
	needLinux(t)
	t.Parallel()
	b := newBench(t, "")
	b.cfg.State = "/proc/upkeep-test-state" // nobody can make a folder there
	b.publish("v1.0.1")
	b.start()
	s := b.until("service", func(s Status, v string) bool { return v == "v1.0.0" && !s.Knowledge.Fresh.IsZero() })
	if s.Code != CodeFailing || s.Self.StateErr == "" || !s.Service.Running {
		t.Errorf("status %s %q", s.Code, s.Summary)
	}
	if err := b.engine.Do(t.Context(), Action{Verb: VerbUpdate}); err == nil {
		t.Error("an update was started without a journal")
	}
	if v := b.serves(); v != "v1.0.0" {
		t.Errorf("%q serves", v)
	}
}

func testNotExecutable(t *testing.T) {
	for _, tc := range []struct {
		name, content, reason string
	}{
		{"another architecture", "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 200), "exec format error"},
		{"no program", "hello, world\n", "exec format error"},
		{"empty", "", "exec format error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "")
			b.content = new(tc.content)
			b.start()
			b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
			b.publish("v1.0.1")
			s := b.until("roll-back", func(s Status, v string) bool {
				return v == "v1.0.0" && s.LastResult != nil && s.Update == nil
			})
			if s.LastResult.Result != ResultRolledBack || !strings.Contains(s.LastResult.Reason, tc.reason) || len(s.Skips) != 1 {
				t.Errorf("result %+v, skips %+v", s.LastResult, s.Skips)
			}
		})
	}
}

// What was verified is what is executed, even when its name leads elsewhere by then.
func testExchanged(t *testing.T) {
	needLinux(t)
	t.Parallel()
	b := newBench(t, "")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	b.sabotage(func(file string) {
		if strings.Contains(file, "v1.0.1") {
			if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("#!/bin/sh\nsleep 1000\n"), 0o755)); err != nil {
				t.Error(err)
			}
		}
	})
	b.publish("v1.0.1")
	s := b.until("update", func(s Status, v string) bool { return v != "" && s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultInstalled || b.serves() != "v1.0.1" {
		t.Errorf("%s serves, result %+v", b.serves(), s.LastResult)
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.Service.Pid))
	if err != nil || strings.TrimSpace(string(name)) != "hello" {
		t.Errorf("the process is called %q, %v; want the service's name", name, err)
	}
}

// A binary that was changed after its verification isn't started, and fetched again.
func testKeptChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.publish("v1.0.1")
	b.start()
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
	if err := b.engine.Do(t.Context(), Action{Verb: VerbRollback}); err != nil {
		t.Fatal(err)
	}
	b.until("roll-back", func(s Status, v string) bool { return v == "v1.0.0" && s.Update == nil })
	file := filepath.Join(b.dir, "hello-v1.0.1-"+testGo)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := errors.Join(os.Remove(file), os.WriteFile(file, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Do(t.Context(), Action{Verb: VerbUpdate, Version: "v1.0.1"}); err != nil {
		t.Fatal(err)
	}
	s := b.until("refusal", func(s Status, v string) bool {
		return v == "v1.0.0" && s.Update == nil && s.LastResult.Result == ResultRefused
	})
	if s.Events[0].Kind != kindChanged || b.metric("upkeep_verification_failures_total", "kind="+kindChanged) != 1 {
		t.Errorf("events %+v", s.Events)
	}
	if err := b.engine.Do(t.Context(), Action{Verb: VerbUpdate, Version: "v1.0.1"}); err != nil {
		t.Fatal(err)
	}
	b.until("update with a new download", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
}

// hookDisk calls a function at the write of the state by a number.
type hookDisk struct {
	state.RealDisk
	mu sync.Mutex
	n  int
	at int
	f  func()
}

func (d *hookDisk) WriteFile(name string, data []byte, perm fs.FileMode) error {
	d.mu.Lock()
	d.n++
	if d.n == d.at {
		d.f()
	}
	d.mu.Unlock()
	return d.RealDisk.WriteFile(name, data, perm)
}

// A stop wins over an update under way; nothing is left running, and the name
// stands for the old version unless the new one was committed.
func testStopInEachState(t *testing.T) {
	for at := 1; at <= 9; at++ {
		t.Run(fmt.Sprintf("at write %d", at), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "")
			b.publish("v1.0.1")
			b.deps.Disk = &hookDisk{at: at, f: func() { b.cancel() }}
			b.start()
			b.wait()
			if b.runErr != nil || b.status != 0 {
				t.Errorf("ended with %d, %v", b.status, b.runErr)
			}
			if v := b.serves(); v != "" {
				t.Errorf("%s is left running", v)
			}
			committed := len(b.engine.history) > 0 && b.engine.history[0].Result == ResultInstalled
			if got := b.target(); committed != (got == "v1.0.1") {
				t.Errorf("the link points at %s; committed is %v", got, committed)
			}
			// An interruption is nobody's fault: the next start does it.
			b.deps.Disk = nil
			b.cfg.Updates.BackoffMin = 0
			b.start()
			s := b.until("update after the restart", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
			if len(s.Skips) > 0 {
				t.Errorf("skips %+v", s.Skips)
			}
		})
	}
}

// No error is remembered longer than its back-off.
func testBuilderDown(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.cfg.Updates.BackoffMin = config.Duration(300 * time.Millisecond)
	b.cfg.Updates.BackoffMax = config.Duration(time.Second)
	b.set(func() { b.lookErr = errors.New("connection refused") })
	b.publish("v1.0.1")
	b.start()
	s := b.until("failure", func(s Status, v string) bool { return v == "v1.0.0" && s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultFailed || s.Code != CodeFailing || !strings.Contains(s.Summary, "connection refused") {
		t.Errorf("status %s %q, result %+v", s.Code, s.Summary, s.LastResult)
	}
	b.set(func() { b.lookErr = nil })
	s = b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
	if s.Code != CodeCurrent {
		t.Errorf("status %s %q", s.Code, s.Summary)
	}
}

// After probation a crash is the service's business: it is started again.
func testCrashLater(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.publish("v1.0.1")
	b.start()
	s := b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.LastResult != nil && s.Update == nil })
	if err := syscall.Kill(s.Service.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = b.until("crash", func(s Status, v string) bool { return s.Service.Restarts > 0 && v == "v1.0.1" && s.Service.Running })
	if s.LastResult == nil || s.LastResult.Result != ResultInstalled || len(s.Skips) != 0 {
		t.Errorf("result %+v, skips %+v", s.LastResult, s.Skips)
	}
	if s.Events[0].Kind != "crashed" || b.metric("upkeep_service_restarts_total") < 1 {
		t.Errorf("events %+v", s.Events)
	}
}

// A link that can't be put back doesn't keep the old version from running, and
// the next start puts it right.
func testLinkStuck(t *testing.T) {
	needLinux(t)
	t.Parallel()
	b := newBench(t, "v1.0.1=exit1")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	// The engine switches to the new version; then the old name is in the way.
	b.sabotage(func(file string) {
		if strings.Contains(file, "v1.0.1") {
			if err := os.Remove(b.cfg.Service.Path); err != nil {
				t.Error(err)
			}
			if err := os.MkdirAll(filepath.Join(b.cfg.Service.Path, "in the way"), 0o700); err != nil {
				t.Error(err)
			}
		}
	})
	b.publish("v1.0.1")
	s := b.until("roll-back", func(s Status, v string) bool { return v == "v1.0.0" && s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultRolledBack || s.Service.Version != "v1.0.0" {
		t.Errorf("result %+v", s.LastResult)
	}
	found := false
	for _, ev := range s.Events {
		found = found || ev.Kind == "rollback_incomplete"
	}
	if !found || s.Code != CodeFailing {
		t.Errorf("nobody is told: %s %q %+v", s.Code, s.Summary, s.Events)
	}
	// A restart in this state runs the right version, and what is in the way is gone one day.
	b.stop()
	b.start()
	b.until("restart", func(s Status, v string) bool { return v == "v1.0.0" && s.Code == CodeFailing })
	if err := os.RemoveAll(b.cfg.Service.Path); err != nil {
		t.Fatal(err)
	}
	b.until("repair", func(s Status, v string) bool { return s.Code != CodeFailing })
	if got := b.target(); got != "v1.0.0" {
		t.Errorf("the link points at %s", got)
	}
}

func (b *bench) sabotage(f func(file string)) {
	b.t.Helper()
	if err := b.engine.do(context.Background(), func() { b.engine.deps.Runner = &sabotage{b.engine.deps.Runner, f} }); err != nil {
		b.t.Fatal(err)
	}
}

// sabotage does something just before a start.
type sabotage struct {
	process.Runner
	f func(file string)
}

func (s *sabotage) Start(spec process.Spec) (process.Process, error) {
	s.f(spec.File)
	return s.Runner.Start(spec)
}

func testDiscoveryLies(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.start()
	b.until("first answer", func(s Status, v string) bool { return v == "v1.0.0" && !s.Knowledge.Fresh.IsZero() })
	b.set(func() { b.askErr = &VerificationError{"log_fork", errors.New("two different answers were signed")} })
	s := b.until("alarm", func(s Status, v string) bool { return s.Code == CodeFailing })
	if !strings.Contains(s.Summary, "two different answers") || len(s.Events) != 1 || !s.Events[0].Security || b.serves() != "v1.0.0" {
		t.Errorf("status %s %q, events %+v", s.Code, s.Summary, s.Events)
	}
	if b.metric("upkeep_verification_failures_total", "kind=log_fork") < 1 {
		t.Error("not counted")
	}
	b.set(func() { b.askErr = nil })
	b.until("all clear", func(s Status, v string) bool { return s.Code == CodeCurrent })
}

// Who the service runs as is about starting it: nothing is guessed.
func testNoUser(t *testing.T) {
	b := newBench(t, "")
	b.cfg.Process.User = "nobody-has-this-name"
	if _, err := New(b.cfg, b.deps); err == nil || !strings.Contains(err.Error(), `there is no user "nobody-has-this-name"`) {
		t.Errorf("%v; want an error that names the user", err)
	}
}

// A configuration that is wrong at the start turns updates off; one that goes
// wrong later isn't used.
func testReload(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.publish("v1.0.1")
	b.deps.UpdatesErr = errors.New("upkeep.toml:7:1: key updates.polcy: is not known")
	var mu sync.Mutex
	next, nextErr := b.cfg, error(nil)
	settled := 0 // more often accepted than not
	b.deps.Reload = func() (Config, func(bool) error, error) {
		mu.Lock()
		defer mu.Unlock()
		return next, func(accepted bool) error {
			mu.Lock()
			defer mu.Unlock()
			if accepted {
				settled++
			} else {
				settled--
			}
			return nil
		}, nextErr
	}
	b.start()
	s := b.until("first answer", func(s Status, v string) bool { return v == "v1.0.0" && !s.Knowledge.Fresh.IsZero() })
	if s.Code != CodeFailing || !strings.Contains(s.Summary, "polcy") || s.Plan.Automatic {
		t.Errorf("status %s %q", s.Code, s.Summary)
	}
	var refused *RefusedError
	reload := func(wrong error) error {
		mu.Lock()
		nextErr = wrong
		mu.Unlock()
		return b.engine.Reload(t.Context())
	}
	if err := reload(errors.New("upkeep.toml:9:1: key wub: is not known")); !errors.As(err, &refused) {
		t.Errorf("%v; want a refusal", err)
	}
	if s := b.state(); s.Code != CodeFailing || !strings.HasPrefix(s.Summary, "Updates are off: ") || !strings.Contains(s.Summary, "wub") {
		t.Errorf("wrong again, in another way: status %s %q", s.Code, s.Summary)
	}
	if err := reload(nil); err != nil {
		t.Fatal(err)
	}
	b.until("update with the right configuration", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
	if err := reload(errors.New("upkeep.toml:3:1: key wob: is not known")); !errors.As(err, &refused) {
		t.Errorf("%v; want a refusal", err)
	}
	if s := b.state(); s.Code != CodeFailing || !strings.Contains(s.Summary, "the one before is in force") || b.metric("upkeep_config_reload_success") != 0 {
		t.Errorf("status %s %q", s.Code, s.Summary)
	}
	b.publish("v1.0.1", "v1.0.2")
	b.until("update with the configuration before", func(s Status, v string) bool { return v == "v1.0.2" && s.Update == nil })
	mu.Lock()
	next.State += "-elsewhere"
	mu.Unlock()
	if err := reload(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("another state folder: %v; want a refusal", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if settled != 1-3 {
		t.Errorf("settled %d; want once accepted and three times not", settled)
	}
}

func testHooks(t *testing.T) {
	needLinux(t)
	for _, tc := range []struct {
		name, script, result, reason string
	}{
		{"not now", "exit 75", ResultPostponed, "not now"},
		{"fails", "echo no backup today; exit 1", ResultFailed, "no backup today"},
		{"hangs", "sleep 1000", ResultFailed, "longer than"},
		{"leaves a child with its output", "sleep 1000 & exit 0", ResultInstalled, ""},
		{"gets the facts", `test "$UPKEEP_HOOK $UPKEEP_FROM_VERSION $UPKEEP_TO_VERSION" = "before_update v1.0.0 v1.0.1"`, ResultInstalled, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "")
			b.cfg.Hooks.Before = []string{"/bin/sh", "-c", tc.script}
			b.cfg.Hooks.Timeout = config.Duration(time.Minute)
			if tc.name == "hangs" {
				b.cfg.Hooks.Timeout = config.Duration(3 * time.Second)
			}
			b.publish("v1.0.1")
			b.start()
			s := b.until("end", func(s Status, v string) bool { return v != "" && s.LastResult != nil && s.Update == nil })
			if s.LastResult.Result != tc.result || !strings.Contains(s.LastResult.Reason, tc.reason) {
				t.Errorf("result %+v; want %s, %q", s.LastResult, tc.result, tc.reason)
			}
			want := "v1.0.0"
			if tc.result == ResultInstalled {
				want = "v1.0.1"
			}
			if v := b.serves(); v != want {
				t.Errorf("%s serves; want %s", v, want)
			}
		})
	}
}

// The control socket says the same as the engine, to its owner.
func TestControlSocket(t *testing.T) {
	b := newBench(t, "")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	name := filepath.Join(b.cfg.State, "control.sock")
	l, err := ListenControl(name, "")
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", fi.Mode(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go ServeControl(ctx, l, b.engine, b.deps.Log)
	c := NewClient(name)
	s, err := c.Status(ctx)
	if err != nil || s.Service.Version != "v1.0.0" || s.API != APIVersion {
		t.Errorf("status %+v, %v", s.Service, err)
	}
	b.said("v1.0.0 is well")
	if got := c.Logs(5); len(got) == 0 || !strings.Contains(got[0], "v1.0.0 is well") {
		t.Errorf("logs %q", got)
	}
	var refused *RefusedError
	if err := c.Do(ctx, Action{Verb: VerbCancel}); !errors.As(err, &refused) {
		t.Errorf("cancel: %v; want a refusal", err)
	}
	if err := c.Do(ctx, Action{Verb: VerbHold, By: "the client's word"}); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.Status(ctx); !s.Hold || s.HoldBy == "" || s.HoldBy == "the client's word" {
		t.Errorf("held by %q; want the name of the socket's peer", s.HoldBy)
	}
	if err := c.Do(ctx, Action{Verb: VerbUnhold}); err != nil {
		t.Fatal(err)
	}
	b.publish("v1.0.1")
	var seen []State
	err = c.Follow(ctx, func(s Status) bool {
		if s.Update != nil {
			seen = append(seen, s.Update.State)
		}
		return s.LastResult == nil
	})
	if err != nil || len(seen) == 0 {
		t.Errorf("followed %v, %v", seen, err)
	}
	if _, err := NewClient(name + "x").Status(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v; want ErrNotRunning", err)
	}
}
