//go:build unix

package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
)

const testGo = "go1.26.8"

func TestUpdate(t *testing.T) {
	b := newBench(t, "")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Running })
	b.publish("v1.0.1")
	s := b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultInstalled || s.LastResult.To.Version != "v1.0.1" || s.LastResult.LogIndex != 3 {
		t.Errorf("result %+v", s.LastResult)
	}
	if got := b.target(); got != "v1.0.1" {
		t.Errorf("the link points at %s", got)
	}
	if s.Code != CodeCurrent || len(s.Kept) != 2 {
		t.Errorf("status %s %q, kept %+v", s.Code, s.Summary, s.Kept)
	}
	if got := b.metric("upkeep_updates_total", "result=installed"); got != 1 {
		t.Errorf("%v updates counted", got)
	}
	if problems, err := promlint.New(bytes.NewReader(b.reg.Text())).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	b.said("v1.0.1 is well")
	b.stop()
	if b.runErr != nil || b.status != 0 {
		t.Errorf("ended with %d, %v", b.status, b.runErr)
	}
	if v := b.serves(); v != "" {
		t.Errorf("%s is left running", v)
	}
	h, err := b.engine.hist.Last(10)
	if err != nil || len(h) != 1 || h[0].Result != ResultInstalled {
		t.Errorf("history %+v, %v", h, err)
	}
}

// Whatever a new version does wrong, the old one serves again and the new one
// is not tried a second time.
func testBadVersion(t *testing.T) {
	for _, tc := range []struct {
		behaviour string
		reason    string
		noHealth  bool
	}{
		{behaviour: "exit0", reason: "exited with status 0"},
		{behaviour: "exit1", reason: "exited with status 1"},
		{behaviour: "exit0", reason: "exited with status 0", noHealth: true},
		{behaviour: "crash:200ms", reason: "exited with status 3", noHealth: true},
		{behaviour: "unhealthy", reason: "not healthy within"},
		{behaviour: "hang", reason: "not healthy within"},
	} {
		t.Run(fmt.Sprintf("%s,%v", tc.behaviour, tc.noHealth), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "v1.0.1="+tc.behaviour)
			if tc.reason == "not healthy within" {
				b.cfg.Health.StartTime = config.Duration(3 * time.Second)
			}
			if tc.noHealth {
				b.cfg.Health.URL = ""
				b.cfg.Health.Probation = config.Duration(3 * time.Second)
			}
			b.start()
			b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
			b.publish("v1.0.1")
			s := b.until("roll-back", func(s Status, v string) bool {
				return v == "v1.0.0" && s.LastResult != nil && s.LastResult.Result == ResultRolledBack && s.Update == nil
			})
			if !strings.Contains(s.LastResult.Reason, tc.reason) {
				t.Errorf("reason %q; want %q", s.LastResult.Reason, tc.reason)
			}
			if got := b.target(); got != "v1.0.0" {
				t.Errorf("the link points at %s", got)
			}
			if len(s.Skips) != 1 || s.Skips[0].Version != "v1.0.1" || s.Code != CodePending {
				t.Errorf("skips %+v, status %s %q", s.Skips, s.Code, s.Summary)
			}
			if got := b.metric("upkeep_rollbacks_total"); got != 1 {
				t.Errorf("%v roll-backs counted", got)
			}
			// A newer version is not hidden by the skipped one.
			b.patient()
			b.publish("v1.0.1", "v1.0.2")
			b.until("next update", func(s Status, v string) bool { return v == "v1.0.2" && s.Update == nil })
		})
	}
}

// What fails verification is refused, and said; the old version serves on.
func TestRefused(t *testing.T) {
	b := newBench(t, "")
	b.set(func() { b.downErr = &VerificationError{"bad_sum", errors.New("the binary is not what was recorded")} })
	b.start()
	first := b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Running })
	b.publish("v1.0.1")
	s := b.until("refusal", func(s Status, v string) bool { return s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultRefused || s.Code != CodeFailing || !strings.Contains(s.Summary, "not what was recorded") {
		t.Errorf("status %s %q, result %+v", s.Code, s.Summary, s.LastResult)
	}
	if len(s.Events) != 1 || s.Events[0].Kind != "bad_sum" || !s.Events[0].Security {
		t.Errorf("events %+v", s.Events)
	}
	if s.Service.Pid != first.Service.Pid || b.serves() != "v1.0.0" {
		t.Error("the service was touched")
	}
	if got := b.metric("upkeep_verification_failures_total", "kind=bad_sum"); got != 1 {
		t.Errorf("%v failures counted", got)
	}
	// The builder is well again: whoever asks doesn't wait for the back-off.
	b.set(func() { b.downErr = nil })
	if err := b.engine.Do(t.Context(), Action{Verb: VerbUpdate, By: "test"}); err != nil {
		t.Fatal(err)
	}
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
}

func TestActions(t *testing.T) {
	b := newBench(t, "")
	b.start()
	ctx := t.Context()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && !s.Knowledge.Fresh.IsZero() })
	refusedWith := func(a Action, text string) {
		t.Helper()
		var refused *RefusedError
		if err := b.engine.Do(ctx, a); !errors.As(err, &refused) || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v; want a refusal with %q", a, err, text)
		}
	}
	done := func(a Action) {
		t.Helper()
		if err := b.engine.Do(ctx, a); err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
	}
	refusedWith(Action{Verb: VerbUpdate}, "nothing to install")
	refusedWith(Action{Verb: VerbUpdate, Version: "v1.0.0"}, "runs already")
	refusedWith(Action{Verb: VerbUpdate, Version: "latest"}, "is no version")
	refusedWith(Action{Verb: VerbRollback}, "no earlier binary")
	refusedWith(Action{Verb: VerbCancel}, "no update is under way")
	refusedWith(Action{Verb: "explode"}, "no action")
	refusedWith(Action{Verb: VerbSkip, Version: "v1.0.0"}, "running version")
	refusedWith(Action{Verb: VerbPause, Reason: "moving\x1b[2J"}, "control characters")
	done(Action{Verb: VerbPause, By: "test"})
	b.publish("v1.0.1")
	b.until("paused", func(s Status, v string) bool { return s.Code == CodePaused })

	slow := make(chan struct{})
	b.set(func() { b.slow = slow })
	done(Action{Verb: VerbUpdate, By: "test"})
	s := b.state()
	if s.Update == nil || s.Update.State != StateFetching || s.Update.To.Version != "v1.0.1" || s.Update.By != "test" {
		t.Fatalf("update %+v", s.Update)
	}
	refusedWith(Action{Verb: VerbUpdate}, "is under way")
	done(Action{Verb: VerbCancel, By: "test"})
	s = b.until("cancelled", func(s Status, v string) bool { return s.Update == nil })
	if s.LastResult.Result != ResultCancelled || s.Service.Version != "v1.0.0" {
		t.Errorf("result %+v", s.LastResult)
	}
	close(slow)
	done(Action{Verb: VerbUpdate, By: "test"})
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })

	done(Action{Verb: VerbRollback, By: "test"})
	s = b.until("roll-back", func(s Status, v string) bool {
		return v == "v1.0.0" && s.Update == nil && s.Service.Version == "v1.0.0"
	})
	if s.LastResult.Kind != kindRollback || s.LastResult.Result != ResultInstalled || len(s.Skips) != 1 || s.Skips[0].Version != "v1.0.1" {
		t.Errorf("result %+v, skips %+v", s.LastResult, s.Skips)
	}
	done(Action{Verb: VerbUnskip, Version: "v1.0.1", By: "test"})
	done(Action{Verb: VerbHold, By: "test"})
	done(Action{Verb: VerbResume, By: "test"})
	s = b.state()
	if !s.Hold || s.Code != CodePending || s.Plan.Automatic {
		t.Errorf("held: %s %q %+v", s.Code, s.Summary, s.Plan)
	}
	done(Action{Verb: VerbUnhold, By: "test"})
	b.until("update after the hold", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
}

// The supervisor ends like the service does.
func TestExitStatus(t *testing.T) {
	b := newBench(t, "v1.0.0=crash:100ms")
	b.cfg.Process.Restart = "exit"
	b.start()
	b.wait()
	if b.status != 3 || b.runErr != nil {
		t.Errorf("ended with %d, %v; want 3, the service's status", b.status, b.runErr)
	}
	b = newBench(t, "v1.0.0=exit7")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	b.stop()
	if b.status != 7 {
		t.Errorf("ended with %d; want 7, the service's status after SIGTERM", b.status)
	}
}

// A binary that was changed while upkeep did not run is run, and said.
func TestBinaryChanged(t *testing.T) {
	b := newBench(t, "")
	b.publish("v1.0.1")
	b.start()
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil && s.Service.Sum != "" })
	b.stop()
	f, err := os.OpenFile(b.cfg.Service.Path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.dir, "hello-v1.0.1-"+testGo)
	if err := errors.Join(os.Remove(file), os.WriteFile(file, append(data, 0), 0o755)); err != nil {
		t.Fatal(err)
	}
	b.start()
	s := b.until("start", func(s Status, v string) bool { return v == "v1.0.1" && len(s.Events) > 0 })
	if s.Events[0].Kind != kindChanged || !s.Events[0].Security {
		t.Errorf("events %+v", s.Events)
	}
}

// One state folder, one supervisor.
func TestTwice(t *testing.T) {
	b := newBench(t, "")
	b.start()
	_, err := New(b.cfg, b.deps)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), b.cfg.State) {
		t.Errorf("second supervisor: %v; want ErrRunning", err)
	}
}

// One that was killed a moment ago is waited for.
func TestLockLingers(t *testing.T) {
	b := newBench(t, "")
	if err := os.MkdirAll(b.cfg.State, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := durable.Lock(filepath.Join(b.cfg.State, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(lockTime/20, func() {
		if err := lock.Unlock(); err != nil {
			t.Error(err)
		}
	})
	b.start()
	b.until("start", func(s Status, v string) bool { return v == "v1.0.0" })
}

// Nothing of the service is left behind, whatever it does.
func testLeftovers(t *testing.T) {
	for _, behaviour := range []string{"deaf", "daemon", "silent"} {
		t.Run(behaviour, func(t *testing.T) {
			b := newBench(t, "v1.0.0="+behaviour)
			b.cfg.Process.Grace = config.Duration(300 * time.Millisecond)
			b.start()
			s := b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Running })
			marked := processesOf(t, b.cfg.State)
			if behaviour == "daemon" && len(marked) < 2 {
				t.Fatalf("processes %v; want the service and its daemon", marked)
			}
			b.stop()
			if left := alive(marked); len(left) > 0 {
				t.Errorf("processes %v are left, service was %d", left, s.Service.Pid)
			}
		})
	}
}

// processesOf lists the processes with the mark of a state folder.
func processesOf(t *testing.T, stateDir string) []int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(stateDir, "process"))
	if err != nil {
		t.Fatal(err)
	}
	_, mark, _ := strings.Cut(string(data), `"mark":"`)
	mark, _, _ = strings.Cut(mark, `"`)
	var found []int
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err == nil && mark != "" && strings.Contains(string(env), "UPKEEP_MARK="+mark+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			found = append(found, pid)
		}
	}
	return found
}

func alive(pids []int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(data), ") Z ")
	})
}
