package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/sources"
)

const attackedGo = "go1.27.4"

// A victim is the real engine with a service of v1.0.1 that is not really
// there, and with versions from a real discoverer that is under attack. It
// installs what it learns of at once: what it would start is what it asks the
// builder for.
type victim struct {
	engine *supervisor.Engine
	base   atomic.Int64 // clock, nanoseconds
	ticks  atomic.Int64

	mu     sync.Mutex
	d      *discover.Discoverer
	wanted []string
	asked  chan struct{} // has room for one: wanted grew

	end func()
}

// now is a clock that never shows the same time twice, so that every poll has
// a time of its own.
func (v *victim) now() time.Time {
	return time.Unix(0, v.base.Load()).UTC().Add(time.Duration(v.ticks.Add(1)) * time.Microsecond)
}

func (v *victim) setClock(now time.Time) { v.base.Store(now.UnixNano()) }

// use makes the engine ask a discoverer.
func (v *victim) use(d *discover.Discoverer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.d = d
}

func (v *victim) Ask(ctx context.Context, module string) (supervisor.Known, error) {
	v.mu.Lock()
	d := v.d
	v.mu.Unlock()
	k, err := (&sources.Versions{Discover: d}).Ask(ctx, module)
	for i := range k.Releases {
		k.Releases[i].Unchecked = "" // what authors say of their versions is not under attack here
	}
	return k, err
}

func (v *victim) List(context.Context, string, string) ([]policy.Release, error) { return nil, nil }

func (v *victim) Lookup(_ context.Context, s spec.Spec, _ func(supervisor.Progress)) (supervisor.Binary, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wanted = append(v.wanted, s.Version+" "+s.GoVersion)
	select {
	case v.asked <- struct{}{}:
	default:
	}
	return supervisor.Binary{}, &supervisor.PermanentError{Err: errors.New("this builder only listens")}
}

func (v *victim) Download(context.Context, supervisor.Binary, string, func(supervisor.Progress)) error {
	return errors.New("there is nothing to download")
}

// installs are the versions that the builder was asked for.
func (v *victim) installs() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.wanted)
}

// A standIn is the process of a service that is not really there.
type standIn struct {
	started time.Time
	done    chan struct{}
	once    sync.Once
}

func (v *victim) Recover() (string, error) { return "", nil }
func (v *victim) Start(process.Spec) (process.Process, error) {
	return &standIn{started: v.now(), done: make(chan struct{})}, nil
}
func (p *standIn) Pid() int               { return 1 }
func (p *standIn) Started() time.Time     { return p.started }
func (p *standIn) Done() <-chan struct{}  { return p.done }
func (p *standIn) Exit() process.Exit     { return process.Exit{} }
func (p *standIn) Signal(os.Signal) error { return nil }
func (p *standIn) Stop(context.Context) (bool, error) {
	p.once.Do(func() { close(p.done) })
	return false, nil
}

// newVictim makes an engine that does not run yet.
func newVictim(t *testing.T, reg *metric.Registry) *victim {
	t.Helper()
	dir := t.TempDir()
	v := &victim{asked: make(chan struct{}, 1)}
	v.setClock(zonetest.Epoch)
	cfg := supervisor.Defaults()
	cfg.State = filepath.Join(dir, "state")
	cfg.Service.Path = filepath.Join(dir, "hello")
	cfg.Updates.Policy = policy.LevelPatch
	cfg.Updates.Delay, cfg.Updates.Jitter = 0, 0
	cfg.Updates.Interval = config.Duration(24 * time.Hour) // it asks when it is told to
	cfg.Updates.BackoffMin, cfg.Updates.BackoffMax = config.Duration(time.Hour), config.Duration(time.Hour)
	binary := filepath.Join(dir, "hello-v1.0.1-"+attackedGo)
	if err := os.WriteFile(binary, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(binary), cfg.Service.Path); err != nil {
		t.Fatal(err)
	}
	var err error
	v.engine, err = supervisor.New(cfg, supervisor.Deps{
		Versions: v, Binaries: v, Runner: v, Now: v.now, Metrics: reg, Kinds: sources.Kinds(), Log: slog.New(slog.DiscardHandler),
		Inspect: func(string) (supervisor.Info, error) {
			return supervisor.Info{Spec: spec.Spec{Module: zonetest.Module, Version: "v1.0.1", GOOS: "linux", GOARCH: "amd64", GoVersion: attackedGo}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// start runs the engine and returns when its first question was answered.
func (v *victim) start(t *testing.T) supervisor.Status {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := v.engine.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	v.end = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(v.end)
	return v.answered(t, time.Time{})
}

// poll makes the engine ask once, and returns what it then says.
func (v *victim) poll(t *testing.T) supervisor.Status {
	t.Helper()
	before := v.now()
	if err := v.engine.Do(t.Context(), supervisor.Action{Verb: supervisor.VerbCheck, By: "test"}); err != nil {
		t.Fatal(err)
	}
	return v.answered(t, before)
}

// answered waits for the answer to a question after some time.
func (v *victim) answered(t *testing.T, after time.Time) supervisor.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	changes := v.engine.Watch(ctx)
	for {
		s, err := v.engine.Status(ctx)
		if err != nil {
			t.Fatalf("waiting for an answer: %v", err)
		}
		if s.Knowledge.Asked.After(after) {
			return s
		}
		select {
		case <-changes:
		case <-ctx.Done():
			t.Fatalf("no answer: %+v", s.Knowledge)
		}
	}
}

// judge says whether the engine installs the version that it should, "" for
// none, and no other.
func (v *victim) judge(t *testing.T, s supervisor.Status, want string) {
	t.Helper()
	var wants []string
	if want != "" {
		wants = []string{want + " " + attackedGo}
		select {
		case <-v.asked:
		case <-time.After(time.Minute):
			t.Errorf("%s is not installed: %s; plan %+v, knowledge %+v", want, s.Summary, s.Plan, s.Knowledge)
		}
	} else if s.Update != nil || s.Plan.Candidate != nil {
		t.Errorf("scheduled: %+v, %+v; nothing should be", s.Plan.Candidate, s.Update)
	}
	v.end() // whatever was under way is over
	if got := v.installs(); !slices.Equal(got, wants) {
		t.Errorf("installed: %q, want %q", got, wants)
	}
}

// kindsSince are the events of discovery after some time.
func kindsSince(s supervisor.Status, after time.Time) (kinds []string) {
	for _, e := range s.Events {
		if e.Time.After(after) {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// kindOf is the kind that an attack has in the engine.
func (a attack) kindOf() string {
	if a.bogus != "" {
		return "dns_" + a.bogus
	}
	return "dns_" + a.event
}

// samples are the values of the counters that an attack raises, by name.
func (a attack) samples(reg *metric.Registry) map[string]float64 {
	out := map[string]float64{}
	for _, m := range reg.Samples() {
		for what, label := range map[string]string{
			"upkeep_discovery_events_total":      a.event,
			"upkeep_discovery_bogus_total":       a.bogus,
			"upkeep_verification_failures_total": a.kindOf(),
		} {
			if m.Name == what && label != "" && slices.Contains(m.Values, label) {
				out[what] = m.Value
			}
		}
	}
	return out
}

// rose names the counters that an attack should have raised and has not.
func (a attack) rose(before, after map[string]float64) (missing []string) {
	want := []string{"upkeep_discovery_events_total"}
	if a.bogus != "" {
		want = append(want, "upkeep_discovery_bogus_total")
	}
	if a.event != discover.EventUnreachable { // nobody lies who says nothing
		want = append(want, "upkeep_verification_failures_total")
	}
	for _, name := range want {
		if after[name] <= before[name] {
			missing = append(missing, fmt.Sprintf("%s of %s (%v)", name, a.kindOf(), after[name]))
		}
	}
	return missing
}
