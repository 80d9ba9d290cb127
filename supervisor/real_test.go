//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
)

const testGo = "go1.26.8"

// A bench is a supervisor of a real process, in this process, with versions
// and binaries at the test's command.
type bench struct {
	t    testing.TB
	dir  string
	addr string
	cfg  Config
	deps Deps
	reg  *prometheus.Registry

	mu       sync.Mutex
	releases []policy.Release
	askErr   error
	lookErr  error
	downErr  error
	content  *string       // when set, what a binary contains
	slow     chan struct{} // when set, a lookup waits for it or its context

	engine *Engine
	cancel context.CancelFunc
	ended  chan struct{}
	status int
	runErr error
}

// newBench lays out a folder with v1.0.0 installed.
func newBench(t testing.TB, behaviour string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, dir: dir, addr: freeAddr(t), reg: prometheus.NewRegistry()}
	b.cfg = Defaults()
	b.cfg.State = filepath.Join(dir, "state")
	b.cfg.File = "test"
	b.cfg.Service.Path = filepath.Join(dir, "hello")
	b.cfg.Process.Env = []string{envService + "=all=well " + behaviour, envAddr + "=" + b.addr}
	b.cfg.Process.Grace = config.Duration(2 * time.Second)
	b.cfg.Process.Restart = "always"
	b.cfg.Updates.Delay, b.cfg.Updates.Jitter = 0, 0
	b.cfg.Updates.Interval = config.Duration(200 * time.Millisecond)
	b.cfg.Updates.BackoffMin = config.Duration(time.Hour)
	b.cfg.Updates.BackoffMax = config.Duration(time.Hour)
	b.cfg.Health.URL = "http://" + b.addr + "/"
	b.cfg.Health.Probation = config.Duration(300 * time.Millisecond)
	b.cfg.Health.Interval = config.Duration(50 * time.Millisecond)
	b.cfg.Health.StartTime = config.Duration(2 * time.Second)
	b.cfg.Health.Timeout = config.Duration(time.Second)
	b.place("v1.0.0")
	if err := os.Symlink("hello-v1.0.0-"+testGo, b.cfg.Service.Path); err != nil {
		t.Fatal(err)
	}
	b.deps = Deps{
		Versions: b, Binaries: b, Inspect: inspectByName, Metrics: b.reg, Kinds: []string{"bad_sum", "log_fork"},
		Output: process.NewOutput(io.Discard, io.Discard),
		Log:    slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	return b
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		fmt.Fprint(os.Stderr, string(p))
	}
	return len(p), nil
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func inspectByName(file string) (Info, error) {
	if target, err := os.Readlink(file); err == nil {
		file = target
	}
	p, ok := versionOfFile(file)
	if !ok {
		return Info{}, fmt.Errorf("%s has no version in its name", file)
	}
	return Info{spec.Spec{Module: "example.org/hello", Version: p.Version, GOOS: "linux", GOARCH: "amd64", GoVersion: p.GoVersion}}, nil
}

// place makes the binary of a version.
func (b *bench) place(version string) string {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(b.dir, "hello-"+version+"-"+testGo)
	if err := link(exe, file); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// link makes a copy that costs nothing where that is possible.
func link(old, new string) error {
	if os.Link(old, new) == nil {
		return nil
	}
	data, err := os.ReadFile(old)
	if err != nil {
		return err
	}
	return os.WriteFile(new, data, 0o755)
}

func (b *bench) publish(versions ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.releases = nil
	for _, v := range versions {
		b.releases = append(b.releases, policy.Release{Version: v})
	}
}

func (b *bench) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *bench) Ask(context.Context, string) (Known, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Known{Releases: slices.Clone(b.releases), Source: "test", Proof: "by hand", LogSize: 7}, b.askErr
}

func (b *bench) List(context.Context, string, string) ([]policy.Release, error) { return nil, nil }

func (b *bench) Lookup(ctx context.Context, s spec.Spec, progress func(Progress)) (Binary, error) {
	b.mu.Lock()
	err, slow := b.lookErr, b.slow
	b.mu.Unlock()
	progress(Progress{Step: "building"})
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return Binary{}, ctx.Err()
		}
	}
	exe, _ := os.Executable()
	sum, size, _ := install.Sum(exe)
	if b.content != nil {
		d := spec.NewDigest()
		fmt.Fprint(d, *b.content)
		sum, size = d.Sum(), d.Size()
	}
	return Binary{Spec: s, Sum: sum, Size: size, LogIndex: 3, LogSize: 7, Builder: "test"}, err
}

func (b *bench) Download(_ context.Context, bin Binary, file string, _ func(Progress)) error {
	b.mu.Lock()
	err := b.downErr
	b.mu.Unlock()
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	_ = os.Remove(file)
	if b.content != nil {
		return os.WriteFile(file, []byte(*b.content), 0o755)
	}
	return link(exe, file)
}

// start runs the supervisor.
func (b *bench) start() {
	b.t.Helper()
	b.deps.Runner = process.NewOS(b.cfg.State, b.deps.Log)
	if r, ok := b.deps.Runner.(*process.OS); ok {
		b.deps.Commands = r.Command
	}
	b.reg = prometheus.NewRegistry()
	b.deps.Metrics = b.reg
	e, err := New(b.cfg, b.deps)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.engine, b.cancel, b.ended = e, cancel, make(chan struct{})
	go func() {
		defer close(b.ended)
		b.status, b.runErr = e.Run(ctx)
	}()
	b.t.Cleanup(b.stop)
}

func (b *bench) stop() {
	b.cancel()
	select {
	case <-b.ended:
	case <-time.After(20 * time.Second):
		b.t.Error("the supervisor does not end")
	}
}

// serves asks the service which version answers, "" when none does.
func (b *bench) serves() string {
	hc := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + b.addr + "/")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err != nil {
		return ""
	}
	version, _, _ := strings.Cut(string(data), " ")
	return version
}

func (b *bench) state() Status {
	b.t.Helper()
	s, err := b.engine.Status(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// until waits for a condition on the status and the version served.
func (b *bench) until(what string, cond func(s Status, served string) bool) Status {
	b.t.Helper()
	var s Status
	var served string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var err error
		if s, err = b.engine.Status(context.Background()); err != nil {
			b.t.Fatalf("waiting for %s: %v", what, err)
		}
		if served = b.serves(); cond(s, served) {
			return s
		}
	}
	b.t.Fatalf("no %s: serves %q, status %s %q, last result %+v, update %+v", what, served, s.Code, s.Summary, s.LastResult, s.Update)
	return s
}

// link target of the service's name.
func (b *bench) target() string {
	b.t.Helper()
	target, err := os.Readlink(b.cfg.Service.Path)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(target, "hello-"), "-"+testGo)
}

func (b *bench) metric(name string, labels ...string) float64 {
	b.t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var have []string
			for _, l := range m.Label {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			if !slices.Equal(have, labels) {
				continue
			}
			if m.Counter != nil {
				return m.Counter.GetValue()
			}
			return m.Gauge.GetValue()
		}
	}
	b.t.Fatalf("there is no metric %s%v", name, labels)
	return 0
}

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
	if problems, err := testutil.GatherAndLint(b.reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	if !strings.Contains(strings.Join(b.engine.Logs(10), "\n"), "v1.0.1 is well") {
		t.Errorf("the service's output is %q", b.engine.Logs(10))
	}
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
			// A loaded machine takes its time to start a process.
			b.cfg.Health.StartTime = config.Duration(3 * time.Second)
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
	<-b.ended
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
