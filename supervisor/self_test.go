//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

const (
	selfModule = "example.org/upkeep"
	envSelf    = "UPKEEP_TEST_SELF" // "v0.1.1=exit1": how a version of upkeep behaves
)

func selfBehaviour(version string) string {
	for item := range strings.FieldsSeq(os.Getenv(envSelf)) {
		if v, b, _ := strings.Cut(item, "="); v == version {
			return b
		}
	}
	return ""
}

// testSelf is what a supervisor of the tests says of itself: its name tells.
func testSelf(dir string) SelfStatus {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	p, ok := versionOfFile(exe)
	if !ok {
		panic(exe)
	}
	return SelfStatus{Module: selfModule, Package: "cmd/upkeep", Version: p.Version, GoVersion: p.GoVersion, Path: filepath.Join(dir, "upkeep"), Binary: exe}
}

// misbehave is what a bad version of upkeep does, on trial or later.
func misbehave(version string, onTrial bool, deps *Deps) {
	kind, arg, _ := strings.Cut(selfBehaviour(version), ":")
	after := func(f func()) {
		d, err := time.ParseDuration(arg)
		if err != nil {
			panic(err)
		}
		time.AfterFunc(d, f)
	}
	switch kind {
	case "exit1":
		fmt.Fprintln(os.Stderr, "no, not today")
		os.Exit(1)
	case "hang":
		select {}
	case "crash":
		after(func() { os.Exit(3) })
	case "killed":
		after(func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	case "stuck":
		after(func() { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) })
	case "liar":
		deps.Self.Version = "v9.9.9"
	case "later": // well on trial only
		if !onTrial {
			misbehaveLater(strings.ReplaceAll(arg, "_", " "))
		}
	}
}

// A selfBench is a supervisor of a service, both under load, that updates itself.
type selfBench struct {
	*outside
	client   *Client
	service  int // process
	failed   atomic.Int64
	unserved atomic.Int64 // of those, requests to the service
	asked    atomic.Int64
	stop     context.CancelFunc
}

func newSelfBench(t *testing.T, behaviour string) *selfBench {
	needLinux(t)
	o := newOutside(t, "")
	b := &selfBench{outside: o, client: NewClient(filepath.Join(o.order.Config.State, "control.sock"))}
	o.env = []string{envSelf + "=" + behaviour}
	o.order.Releases = nil
	o.order.Self = []string{"v0.1.0"}
	o.order.Config.Self.Delay, o.order.Config.Self.Stripped = 0, false
	o.order.Config.Self.Probation = config.Duration(time.Second)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := "upkeep-v0.1.0-" + testGo
	if err := link(exe, filepath.Join(o.dir, name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name, filepath.Join(o.dir, "upkeep")); err != nil {
		t.Fatal(err)
	}
	return b
}

// begin starts it and everybody who wants something of it.
func (b *selfBench) begin() Status {
	b.t.Helper()
	b.run()
	s := b.await("first start", func(s Status) bool { return s.Service.Running && b.serves() == "v1.0.0" })
	b.service = s.Service.Pid
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.t.Cleanup(cancel)
	ask := func(f func() error) {
		for ctx.Err() == nil {
			if err := f(); err != nil && ctx.Err() == nil {
				if b.failed.Add(1) < 5 {
					b.t.Log(err)
				}
			}
			b.asked.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	}
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go ask(func() error {
		resp, err := hc.Get("http://" + b.addr + "/")
		if err == nil {
			resp.Body.Close()
		} else if ctx.Err() == nil {
			b.unserved.Add(1)
		}
		return err
	})
	go ask(func() error {
		// A connection of its own each time: nobody is to be refused.
		_, err := NewClient(b.client.socket).Status(ctx)
		return err
	})
	return s
}

// publishSelf makes a version of upkeep known to the supervisor that runs.
func (b *selfBench) ask(a Action) {
	b.t.Helper()
	a.By = "test"
	if err := b.client.Do(b.t.Context(), a); err != nil {
		b.t.Fatalf("%+v: %v\n%s", a, err, b.out.String())
	}
}

func (b *selfBench) await(what string, cond func(s Status) bool) Status {
	b.t.Helper()
	var s Status
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s, err = b.client.Status(b.t.Context()); err == nil && cond(s) {
			return s
		}
	}
	b.t.Fatalf("no %s: %v, status %s %q, self %+v\n%s", what, err, s.Code, s.Summary, s.Self, b.out.String())
	return s
}

// untouched checks that nobody noticed anything.
func (b *selfBench) untouched(s Status) {
	b.t.Helper()
	if s.Service.Pid != b.service || s.Service.Restarts != 0 || b.serves() != "v1.0.0" {
		b.t.Errorf("the service is process %d after %d restarts; want %d untouched\n%s", s.Service.Pid, s.Service.Restarts, b.service, b.out.String())
	}
	if s.Self.Pid != b.cmd.Process.Pid {
		b.t.Errorf("upkeep is process %d; want %d", s.Self.Pid, b.cmd.Process.Pid)
	}
	if n := b.failed.Load(); n != 0 {
		b.t.Errorf("%d of %d requests failed", n, b.asked.Load())
	}
	if !strings.Contains(strings.Join(b.client.Logs(100), "\n"), "v1.0.0 is well, process "+strconv.Itoa(b.service)) {
		b.t.Errorf("the service's output is lost: %q", b.client.Logs(100))
	}
}

func (b *selfBench) selfTarget() string {
	target, err := os.Readlink(filepath.Join(b.dir, "upkeep"))
	if err != nil {
		b.t.Fatal(err)
	}
	p, _ := versionOfFile(target)
	return p.Version
}

// The supervisor takes the place of the one before without anybody noticing:
// same process, same service, every request is answered. Then it goes back,
// the service can be restarted, updated and stopped, as before.
func TestSelfUpdate(t *testing.T) {
	t.Parallel()
	b := newSelfBench(t, "")
	b.order.Self = append(b.order.Self, "v0.1.1")
	b.order.Config.Updates.Paused = true // goes when the test says so
	first := b.begin()
	b.await("knowledge", func(s Status) bool { return s.Self.Plan != nil && s.Self.Plan.Candidate != nil })
	// Somebody watches.
	watched := make(chan error, 1)
	go func() { watched <- b.client.Follow(t.Context(), func(Status) bool { return true }) }()
	b.ask(Action{Verb: VerbUpdate, Self: true})
	s := b.await("self-update", func(s Status) bool { return s.Self.Version == "v0.1.1" && s.Self.Update == nil })
	b.untouched(s)
	if err := <-watched; err == nil || err.Error() != "upkeep ended" {
		t.Errorf("who watched was told %v", err)
	}
	r := s.Self.LastResult
	if r == nil || r.Result != ResultInstalled || r.Kind != kindSelfUpdate || r.From.Version != "v0.1.0" || s.History[0].ID != r.ID {
		t.Errorf("result %+v, history %+v", r, s.History)
	}
	if !s.Self.Started.Equal(first.Self.Started) || !s.Self.Since.After(first.Self.Started) || b.selfTarget() != "v0.1.1" || !s.Paused {
		t.Errorf("self %+v, paused %v", s.Self, s.Paused)
	}
	if p, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.Self.Pid)); err != nil || strings.TrimSpace(string(p)) != "upkeep" {
		t.Errorf("the process is called %q, %v", p, err)
	}
	// And back, to a binary at hand.
	b.ask(Action{Verb: VerbRollback, Self: true})
	s = b.await("roll-back of upkeep", func(s Status) bool { return s.Self.Version == "v0.1.0" && s.Self.Update == nil })
	b.untouched(s)
	if len(s.Self.Skips) != 1 || s.Self.Skips[0].Version != "v0.1.1" || b.selfTarget() != "v0.1.0" {
		t.Errorf("skips %+v, link to %s", s.Self.Skips, b.selfTarget())
	}
	// The service is this process's child as before: its end is seen.
	b.stop()
	if err := syscall.Kill(b.service, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = b.await("restart", func(s Status) bool { return s.Service.Restarts == 1 && s.Service.Running && b.serves() == "v1.0.0" })
	if len(s.Events) == 0 || !strings.Contains(s.Events[0].Text, "signal 9") {
		t.Errorf("events %+v", s.Events)
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.ends()
	if left := b.services(); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
}

// Whatever a new version of upkeep does on trial, the one before goes on and
// nobody notices; it isn't tried a second time.
func TestSelfUpdateBad(t *testing.T) {
	for _, tc := range []struct{ behaviour, result, reason string }{
		{"exit1", ResultRolledBack, "exit status 1 (no, not today)"},
		{"crash:300ms", ResultRolledBack, "exit status 3"},
		{"killed:300ms", ResultRolledBack, "signal: killed"},
		{"hang", ResultRolledBack, "did not answer within"},
		{"stuck:600ms", ResultRolledBack, "answer"},
		{"liar", ResultRolledBack, "it says that it is v9.9.9"},
		{"other", ResultRefused, "which is not what was asked for"},
	} {
		t.Run(tc.behaviour, func(t *testing.T) {
			t.Parallel()
			b := newSelfBench(t, "v0.1.1="+tc.behaviour)
			b.order.Self = append(b.order.Self, "v0.1.1")
			b.order.Config.Self.Probation = config.Duration(time.Minute)
			switch {
			case tc.behaviour == "liar": // is given the time to say it
				b.order.Hasty, b.order.Config.Self.Probation = "trial", config.Duration(10*time.Second)
			case tc.behaviour == "hang" || strings.HasPrefix(tc.behaviour, "stuck"):
				b.order.Hasty, b.order.Config.Self.Probation = "trial", config.Duration(3*time.Second)
			}
			b.begin()
			s := b.await("end of the trial", func(s Status) bool { return s.Self.LastResult != nil && s.Self.Update == nil })
			b.untouched(s)
			r := s.Self.LastResult
			if r.Result != tc.result || !strings.Contains(r.Reason, tc.reason) || s.Self.Version != "v0.1.0" || b.selfTarget() != "v0.1.0" {
				t.Errorf("result %+v, version %s, link to %s", r, s.Self.Version, b.selfTarget())
			}
			if skipped := len(s.Self.Skips) == 1; skipped != (tc.result == ResultRolledBack) {
				t.Errorf("skips %+v", s.Self.Skips)
			}
			if len(s.Events) != 1 || s.Events[0].Security != (tc.result == ResultRefused) {
				t.Errorf("events %+v", s.Events)
			}
			b.stop()
		})
	}
}

// An update of upkeep that waits for its time can be cancelled, and waits longer then.
func TestSelfCancel(t *testing.T) {
	b := newBench(t, "")
	b.deps.Self = SelfStatus{Module: selfModule, Package: "cmd/upkeep", Version: "v0.1.0", GoVersion: testGo, Path: filepath.Join(b.dir, "upkeep"),
		Binary: filepath.Join(b.dir, "upkeep-v0.1.0-"+testGo)}
	b.deps.Successor = OSSuccessor{}
	b.cfg.Self.Delay = config.Duration(time.Minute)
	b.start()
	cancel := Action{Verb: VerbCancel, Self: true, By: "test"}
	var refused *RefusedError
	if err := b.engine.Do(t.Context(), cancel); !errors.As(err, &refused) {
		t.Errorf("nothing to cancel: %v; want a refusal", err)
	}
	b.set(func() { b.self = []string{"v0.1.0", "v0.1.1"} })
	s := b.until("schedule", func(s Status, _ string) bool {
		return s.Self.Plan != nil && s.Self.Plan.Candidate != nil && s.Self.Plan.Automatic
	})
	if left := s.Self.Plan.Candidate.When.Sub(s.Now); left > time.Minute {
		t.Errorf("it goes in %v", left)
	}
	if err := b.engine.Do(t.Context(), cancel); err != nil {
		t.Fatal(err)
	}
	s = b.state()
	c := s.Self.Plan.Candidate
	if left := c.When.Sub(s.Now); left < 50*time.Minute || !strings.Contains(c.Wait, "cancelled by test") || s.History[0].Kind != "self_cancel" || s.History[0].To.Version != "v0.1.1" {
		t.Errorf("after the cancel it goes in %v (%q), history %+v", left, c.Wait, s.History[0])
	}
}

// Every state of upkeep's own updates has a row, and after a crash each leads to an end.
func TestSelfTransitions(t *testing.T) {
	for from, row := range selfTransitions {
		for ev, to := range row {
			if _, ok := selfTransitions[to]; !ok {
				t.Errorf("%s + %s leads to %q, which has no row", from, ev, to)
			}
		}
		for _, ev := range []event{evRecover, evStop} {
			if _, ok := row[ev]; !ok {
				t.Errorf("%s has no %s", from, ev)
			}
		}
		if to := row[evRecover]; to != StateIdle && to != StateRolledBack {
			t.Errorf("a restart in %s leads to %s", from, to)
		}
		if from != StateIdle && selfSteps[from] == "" && from != StateScheduled {
			t.Errorf("%s has no name", from)
		}
	}
}
