//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/policy"
)

// What somebody asks for at a time goes then, whatever delay and windows say,
// and can be taken back.
func TestAppointment(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) {
		c.Updates.Policy, c.Updates.Delay, c.Updates.Windows = policy.LevelMinor, config.Duration(1000*time.Hour), []string{"sa,su"}
	}, func(b *clockBench) {
		do := func(a Action, refusal string) {
			b.t.Helper()
			err := b.engine.Do(context.Background(), a)
			if refusal == "" && err != nil || refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)) {
				b.t.Errorf("%+v: %v; want %q", a, err, refusal)
			}
		}
		b.publish("v1.0.1")
		time.Sleep(2 * time.Hour)
		at := time.Now().Add(50 * time.Hour) // a Monday
		do(Action{Verb: VerbSchedule, Version: "v1.0.1"}, "say when")
		do(Action{Verb: VerbSchedule, Version: "v1.0.1", At: time.Now()}, "is over")
		do(Action{Verb: VerbSchedule, Version: "v1.0.1", At: at.Add(400 * 24 * time.Hour)}, "more than a year")
		do(Action{Verb: VerbSchedule, Version: "v1.0.0", At: at}, "runs already")
		do(Action{Verb: VerbSchedule, At: at, By: "test"}, "")
		s := b.state()
		if s.Scheduled == nil || s.Scheduled.Version != "v1.0.1" || !s.Plan.Automatic || !s.Plan.Candidate.When.Equal(at) || s.Code != CodePending {
			b.t.Errorf("scheduled %+v, plan %+v", s.Scheduled, s.Plan)
		}
		do(Action{Verb: VerbCancel}, "")
		if s := b.state(); s.Scheduled != nil {
			b.t.Errorf("scheduled %+v", s.Scheduled)
		}
		do(Action{Verb: VerbCancel}, "no update is under way")
		do(Action{Verb: VerbSchedule, At: at, By: "test"}, "")
		between(t, "update", b.when("v1.0.1", 60*time.Hour), 50*time.Hour, 50*time.Hour+10*time.Minute)
		if s := b.state(); s.Scheduled != nil || s.LastResult.By != "test" {
			b.t.Errorf("scheduled %+v, result %+v", s.Scheduled, s.LastResult)
		}
	})
}

// A service that keeps ending, and seldom runs, is updated at its time too.
func TestAppointmentWhileDown(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) {
		c.Updates.Policy, c.Updates.Interval, r.life["v1.0.0"] = policy.LevelManual, config.Duration(24*time.Hour), time.Millisecond
	}, func(b *clockBench) {
		at := time.Now().Add(3*time.Hour + 30*time.Second)
		if err := b.engine.Do(context.Background(), Action{Verb: VerbSchedule, Version: "v1.0.1", At: at}); err != nil {
			b.t.Fatal(err)
		}
		between(t, "update", b.when("v1.0.1", 5*time.Hour), 3*time.Hour, 3*time.Hour+10*time.Minute)
	})
}

// An update that somebody cancels isn't begun again at once.
func TestCancelled(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) { c.Updates.Interval = config.Duration(6 * time.Hour) }, func(b *clockBench) {
		slow := make(chan struct{})
		b.set(func() { b.slow = slow })
		b.publish("v1.0.1")
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if s := b.state(); s.Update == nil || s.Update.State != StateFetching {
			b.t.Fatalf("update %+v", s.Update)
		}
		if err := b.engine.Do(context.Background(), Action{Verb: VerbCancel, By: "test"}); err != nil {
			b.t.Fatal(err)
		}
		close(slow)
		synctest.Wait()
		if s := b.state(); s.Update != nil || s.Plan.Candidate == nil || s.Plan.Candidate.Wait != "it was cancelled by test" {
			b.t.Errorf("update %+v, plan %+v", s.Update, s.Plan)
		}
		between(t, "the next try", b.when("v1.0.1", 10*time.Hour), 6*time.Hour-time.Minute, 6*time.Hour+10*time.Minute)
	})
}

// A version that one Go can't build is built with an older one.
func TestOlderGo(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) {}, func(b *clockBench) {
		var tried []string
		b.set(func() {
			b.gos = []policy.GoRelease{{Version: "go1.27.2", Kind: "cur"}, {Version: "go1.26.9", Kind: "prev"}}
			b.look = func(s spec.Spec) error {
				tried = append(tried, s.GoVersion)
				if s.GoVersion == "go1.27.2" {
					return &PermanentError{errors.New("it does not compile")}
				}
				return nil
			}
		})
		b.publish("v1.0.1")
		between(t, "update", b.when("v1.0.1", 3*time.Hour), 0, 2*time.Hour)
		if s := b.state(); s.Service.GoVersion != "go1.26.9" || fmt.Sprint(tried) != "[go1.27.2 go1.26.9]" {
			b.t.Errorf("runs with %s, tried %v", s.Service.GoVersion, tried)
		}
	})
}

// Majors of another module path are shown and never installed.
func TestMajors(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) { c.Updates.Policy = policy.LevelMinor }, func(b *clockBench) {
		b.set(func() {
			b.majors = map[string]string{"example.org/hello/v2": "v2.1.0", "example.org/hello/v3": "v2.9.9", "example.org/hello/v4": "v4.0.0"}
		})
		b.publish("v1.0.0")
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		s := b.state()
		var seen []string
		for _, v := range s.Plan.Versions {
			seen = append(seen, v.Version+" "+v.Kind+" "+v.Path)
		}
		if want := "[v2.1.0 major example.org/hello/v2 v1.0.0 running ]"; fmt.Sprint(seen) != want || s.Plan.Candidate != nil || b.runner.starts() != "v1.0.0" {
			b.t.Errorf("versions %v; want %s; candidate %+v, starts %s", seen, want, s.Plan.Candidate, b.runner.starts())
		}
	})
}

// A version that its author took back since it was learned of isn't installed,
// with no Go version.
func TestRetractedMeanwhile(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) {}, func(b *clockBench) {
		b.set(func() {
			b.gos = []policy.GoRelease{{Version: "go1.27.2", Kind: "cur"}, {Version: "go1.26.9", Kind: "prev"}}
			b.withdrawn = "it eats data"
		})
		b.publish("v1.0.1")
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		s := b.state()
		if s.LastResult == nil || s.LastResult.Result != ResultFailed || !strings.Contains(s.LastResult.Reason, "retracted by its author: it eats data") ||
			b.runner.starts() != "v1.0.0" || len(s.History) != 1 {
			b.t.Errorf("result %+v, starts %s, history %+v", s.LastResult, b.runner.starts(), s.History)
		}
	})
}

// A journal of a newer upkeep, in a state that this one does not know, is undone.
func TestUnknownState(t *testing.T) {
	e := &Engine{log: newDiscard()}
	e.doc.Update = &update{State: "dancing", FromFile: "/srv/hello/hello-v1.0.0"}
	e.doc.Self.Update = &update{State: "dancing"}
	e.knowStates()
	if !e.doc.Update.State.touched() || e.doc.Self.Update != nil {
		t.Errorf("state %q, self %+v", e.doc.Update.State, e.doc.Self.Update)
	}
	e.doc.Update = &update{State: "dancing"}
	if e.knowStates(); e.doc.Update != nil {
		t.Errorf("without a file to go back to: %+v", e.doc.Update)
	}
}

// What nobody tells of any more is forgotten one day.
func TestForget(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	first := map[string]time.Time{"@v1.0.0": now.Add(-1000 * time.Hour * 24), "@v0.9.0": now.Add(-91 * time.Hour * 24), "@v0.9.9": now.Add(-time.Hour)}
	failures := map[string]failure{"old": {Until: now.Add(-91 * time.Hour * 24)}, "new": {Until: now.Add(-time.Hour)}}
	forget(first, failures, policy.Input{Now: now, Releases: []policy.Release{{Version: "v1.0.0"}}})
	if len(first) != 2 || len(failures) != 1 {
		t.Errorf("%v, %v", first, failures)
	}
}
