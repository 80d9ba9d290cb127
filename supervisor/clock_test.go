//go:build unix

package supervisor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/process"
)

// A fakeRunner starts fake processes, on the fake clock of a test.
type fakeRunner struct {
	mu      sync.Mutex
	started []string                 // versions, in order
	life    map[string]time.Duration // of a version's process, 0 = until it is stopped
}

type fakeProcess struct {
	start time.Time
	done  chan struct{}
	once  sync.Once
	exit  process.Exit
}

func (r *fakeRunner) Recover() (string, error) { return "", nil }

func (r *fakeRunner) Start(s process.Spec) (process.Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, _ := versionOfFile(s.File)
	r.started = append(r.started, p.Version)
	proc := &fakeProcess{start: time.Now(), done: make(chan struct{})}
	if d := r.life[p.Version]; d > 0 {
		time.AfterFunc(d, func() { proc.end(process.Exit{Code: 1}) })
	}
	return proc, nil
}

func (r *fakeRunner) starts() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.started, " ")
}

func (p *fakeProcess) end(x process.Exit) {
	p.once.Do(func() {
		x.After = time.Since(p.start)
		p.exit = x
		close(p.done)
	})
}
func (p *fakeProcess) Pid() int               { return 1 }
func (p *fakeProcess) Started() time.Time     { return p.start }
func (p *fakeProcess) Done() <-chan struct{}  { return p.done }
func (p *fakeProcess) Exit() process.Exit     { return p.exit }
func (p *fakeProcess) Signal(os.Signal) error { return nil }
func (p *fakeProcess) Stop(context.Context) (bool, error) {
	time.Sleep(50 * time.Millisecond)
	p.end(process.Exit{})
	return false, nil
}

// A clockBench is an engine on a fake clock, which begins at midnight UTC on
// 1 January 2000, a Saturday.
type clockBench struct {
	*bench
	runner *fakeRunner
	shift  atomic.Int64 // of the wall clock, nanoseconds
	probed time.Time    // first health check
}

func clockTest(t *testing.T, change func(*Config, *fakeRunner), f func(b *clockBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := &clockBench{bench: &bench{t: t, dir: dir}, runner: &fakeRunner{life: map[string]time.Duration{}}}
		b.cfg = Defaults()
		b.cfg.State = filepath.Join(dir, "state")
		b.cfg.Service.Path = filepath.Join(dir, "hello")
		b.cfg.Process.Restart = "always"
		b.cfg.Updates.Delay, b.cfg.Updates.Jitter = 0, 0
		b.cfg.Updates.Interval = config.Duration(time.Hour) // a version that is published is seen soon
		b.cfg.Updates.Timezone = "UTC"
		change(&b.cfg, b.runner)
		b.content = new("binary")
		if err := os.WriteFile(filepath.Join(dir, "hello-v1.0.0-"+testGo), []byte("binary"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("hello-v1.0.0-"+testGo, b.cfg.Service.Path); err != nil {
			t.Fatal(err)
		}
		e, err := New(b.cfg, Deps{
			Versions: b, Binaries: b, Inspect: inspectByName, Runner: b.runner, Kinds: []string{"bad_sum"},
			Now: func() time.Time { return time.Now().Add(time.Duration(b.shift.Load())) }, Output: process.NewOutput(io.Discard, io.Discard),
			Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.engine, b.cancel = e, cancel
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, err := e.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		defer func() {
			cancel()
			<-ended
		}()
		f(b)
	})
}

// when lets time go by until a version runs, at most so long, and returns after
// how long it did.
func (b *clockBench) when(version string, most time.Duration) time.Duration {
	b.t.Helper()
	start := time.Now()
	for time.Since(start) <= most {
		synctest.Wait()
		if s := b.state(); s.Service.Version == version && s.Update == nil {
			return time.Since(start)
		}
		time.Sleep(max(most/1000, time.Second))
	}
	s := b.state()
	b.t.Fatalf("%s does not run after %v: %s %q, starts %s, events %+v", version, most, s.Code, s.Summary, b.runner.starts(), s.Events)
	return 0
}

func between(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s after %v; want between %v and %v", what, got, low, high)
	}
}

// The delay counts from the first sight, over restarts of nothing but time.
func TestDelay(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) { c.Updates.Delay = config.Duration(72 * time.Hour) }, func(b *clockBench) {
		time.Sleep(2 * time.Hour)
		b.publish("v1.0.1")
		between(t, "update", b.when("v1.0.1", 80*time.Hour), 71*time.Hour, 75*time.Hour)
	})
}

func TestWindow(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) { c.Updates.Windows = []string{"mo 02:00-04:00"} }, func(b *clockBench) {
		b.publish("v1.0.1")
		// Saturday midnight to Monday 02:00 is 50 hours.
		between(t, "update", b.when("v1.0.1", 60*time.Hour), 50*time.Hour, 50*time.Hour+10*time.Minute)
		// Whoever asks goes at once, outside of the windows.
		time.Sleep(3 * time.Hour)
		b.publish("v1.0.2")
		time.Sleep(2 * time.Hour)
		if err := b.engine.Do(context.Background(), Action{Verb: VerbUpdate, By: "test"}); err != nil {
			t.Fatal(err)
		}
		between(t, "update asked for", b.when("v1.0.2", time.Hour), 0, time.Minute)
	})
}

// Jitter spreads and ends; failures back off, twice as long each time, up to
// the limit, and are forgotten with success.
func TestBackoff(t *testing.T) {
	clockTest(t, func(c *Config, r *fakeRunner) {
		c.Updates.BackoffMin, c.Updates.BackoffMax = config.Duration(time.Minute), config.Duration(8*time.Minute)
		c.Updates.Interval = config.Duration(30 * time.Second)
	}, func(b *clockBench) {
		b.set(func() { b.lookErr = errors.New("down") })
		b.publish("v1.0.1")
		time.Sleep(time.Hour)
		synctest.Wait()
		n := 0
		for _, r := range b.state().History {
			if r.Result == ResultFailed {
				n++
			}
		}
		// At 0, 1, 3, 7, 15, 23, 31, 39, 47, 55 minutes.
		if n < 9 || n > 11 {
			t.Errorf("%d tries in an hour; want about 10", n)
		}
		b.set(func() { b.lookErr = nil })
		between(t, "update", b.when("v1.0.1", time.Hour), 0, 9*time.Minute)
		if len(b.engine.doc.Failures) != 0 {
			t.Errorf("failures are remembered: %v", b.engine.doc.Failures)
		}
	})
}

// A version that dies at any moment of probation is rolled back; one that lives
// longer stays.
func TestProbationClock(t *testing.T) {
	for life, stays := range map[time.Duration]bool{
		time.Millisecond: false, 2 * time.Second: false, 20 * time.Second: false, 29 * time.Second: false, 31 * time.Second: true,
	} {
		clockTest(t, func(_ *Config, r *fakeRunner) { r.life["v1.0.1"] = life }, func(b *clockBench) {
			b.publish("v1.0.1")
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			s := b.state()
			if got := s.Service.Version == "v1.0.1"; got != stays {
				t.Errorf("a version that dies after %v stays: %v", life, got)
			}
			if !stays && (b.runner.starts() != "v1.0.0 v1.0.1 v1.0.0" || len(s.Skips) != 1) {
				t.Errorf("starts %q, skips %+v; want one try", b.runner.starts(), s.Skips)
			}
		})
	}
}

// A wall clock that jumps by a day delays nothing for ever and hurries nothing
// that was installed; the service isn't touched by it.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		clockTest(t, func(c *Config, r *fakeRunner) {
			c.Updates.Delay = config.Duration(10 * time.Hour)
			c.Updates.Windows = []string{"02:00-04:00"}
		}, func(b *clockBench) {
			b.publish("v1.0.1")
			time.Sleep(time.Hour)
			b.shift.Store(int64(jump))
			between(t, "update", b.when("v1.0.1", 100*time.Hour), 0, 50*time.Hour)
			if got := b.runner.starts(); got != "v1.0.0 v1.0.1" {
				t.Errorf("starts %q", got)
			}
		})
	}
}

// A crashing service is started again with growing pauses, for ever.
func TestRestarts(t *testing.T) {
	clockTest(t, func(_ *Config, r *fakeRunner) { r.life["v1.0.0"] = time.Millisecond }, func(b *clockBench) {
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		n := len(strings.Fields(b.runner.starts()))
		// 100 ms, 200 ms, … 51 s, then every minute.
		if n < 17 || n > 21 {
			t.Errorf("%d starts in ten minutes; want about 19", n)
		}
	})
}

// Unhealthy after having been healthy.
func TestProbationHealth(t *testing.T) {
	for _, tc := range []struct {
		name    string
		good    func(since time.Duration) bool
		install bool
		reason  string
	}{
		{"always", func(time.Duration) bool { return true }, true, ""},
		{"after a slow start", func(d time.Duration) bool { return d > 15*time.Second }, true, ""},
		{"too slow", func(d time.Duration) bool { return d > 25*time.Second }, false, "not healthy within 20s"},
		{"one hiccup", func(d time.Duration) bool { return d < 10*time.Second || d > 11*time.Second }, true, ""},
		{"goes bad", func(d time.Duration) bool { return d < 10*time.Second }, false, "became unhealthy"},
		{"bad at the end", func(d time.Duration) bool { return d < 28*time.Second }, false, "became unhealthy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clockTest(t, func(c *Config, r *fakeRunner) {}, func(b *clockBench) {
				check := checkFunc(func() error {
					b.runner.mu.Lock()
					defer b.runner.mu.Unlock()
					if b.probed.IsZero() {
						b.probed = time.Now()
					}
					if !tc.good(time.Since(b.probed)) {
						return errors.New("status 500")
					}
					return nil
				})
				if err := b.engine.do(context.Background(), func() { b.engine.deps.Checker = check }); err != nil {
					t.Fatal(err)
				}
				b.publish("v1.0.1")
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				s := b.state()
				if got := s.LastResult.Result == ResultInstalled; got != tc.install || !strings.Contains(s.LastResult.Reason, tc.reason) {
					t.Errorf("result %+v", s.LastResult)
				}
			})
		})
	}
}

type checkFunc func() error

func (checkFunc) Configured() bool                        { return true }
func (f checkFunc) Check(context.Context) (string, error) { return "", f() }

// Every state has a row, every target is a state, and only the states after
// StateVerified can leave something to undo.
func TestTransitions(t *testing.T) {
	for from, row := range transitions {
		for ev, to := range row {
			if _, ok := transitions[to]; !ok {
				t.Errorf("%s + %s leads to %q, which has no row", from, ev, to)
			}
			if from.touched() && !to.touched() && to != StateCommitted && to != StateRolledBack {
				t.Errorf("%s + %s leads to %s without an end", from, ev, to)
			}
		}
		for _, ev := range []event{evRecover, evStop} {
			if _, ok := row[ev]; !ok {
				t.Errorf("%s has no %s", from, ev)
			}
		}
		if to := row[evRecover]; from.touched() != (to == StateRollingBack) {
			t.Errorf("a restart in %s leads to %s", from, to)
		}
		if _, err := next(from, "nonsense"); err == nil {
			t.Errorf("%s takes an event that isn't in the table", from)
		}
	}
}
