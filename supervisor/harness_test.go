//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/internal/sockdir"
	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
)

// A bench is a supervisor of a real process, in this process, with versions
// and binaries at the test's command.
type bench struct {
	t    testing.TB
	dir  string
	addr string
	cfg  Config
	deps Deps
	reg  *metric.Registry

	mu        sync.Mutex
	releases  []policy.Release
	askErr    error
	lookErr   error
	downErr   error
	content   *string       // when set, what a binary contains
	slow      chan struct{} // when set, a lookup waits for it or its context
	program   string        // every version's binary; "" = this test binary
	self      []string      // versions of upkeep itself
	gos       []policy.GoRelease
	majors    map[string]string // newest version of other module paths
	look      func(spec.Spec) error
	withdrawn string
	syncs     bool // downloads are durable, as real ones are

	engine *Engine
	cancel context.CancelFunc
	ended  chan struct{}
	status int
	runErr error
}

// newBench lays out a folder with v1.0.0 installed.
func newBench(t testing.TB, behaviour string) *bench {
	t.Helper()
	dir := sockdir.New(t)
	b := &bench{t: t, dir: dir, addr: freeAddr(t), reg: metric.New()}
	b.cfg = Defaults()
	b.cfg.State = filepath.Join(dir, "state")
	b.cfg.File = "test"
	b.cfg.Service.Path = filepath.Join(dir, "hello")
	b.cfg.Process.Env = []string{envService + "=all=well " + behaviour, envAddr + "=" + b.addr, fmt.Sprint(envTest, "=", os.Getpid())}
	// A busy machine takes its time; who counts on the end of a time sets it.
	b.cfg.Process.Grace = config.Duration(time.Minute)
	b.cfg.Process.Restart = "always"
	b.cfg.Updates.Delay, b.cfg.Updates.Jitter = 0, 0
	b.cfg.Updates.Interval = config.Duration(200 * time.Millisecond)
	b.cfg.Updates.BackoffMin = config.Duration(time.Hour)
	b.cfg.Updates.BackoffMax = config.Duration(time.Hour)
	b.cfg.Health.URL = "http://" + b.addr + "/"
	b.cfg.Health.Probation = config.Duration(300 * time.Millisecond)
	b.cfg.Health.Interval = config.Duration(50 * time.Millisecond)
	b.cfg.Health.StartTime = config.Duration(time.Minute)
	b.cfg.Health.Timeout = config.Duration(20 * time.Second)
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

func newDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// freeAddr is an address for a service. On Linux it is none from which clients
// connect, so that none of them has the port while the service is away.
func freeAddr(t testing.TB) string {
	t.Helper()
	ip := net.IPv4(127, 0, 0, 1)
	if runtime.GOOS == "linux" {
		ip = net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(255)), byte(1+rand.IntN(254)))
	}
	l, err := net.Listen("tcp", ip.String()+":0")
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
	if strings.HasPrefix(filepath.Base(file), "upkeep-") {
		s := spec.Spec{Module: selfModule, Dir: "cmd/upkeep", Version: p.Version, GoVersion: p.GoVersion}
		if selfBehaviour(p.Version) == "other" {
			s.Module = "example.org/other"
		}
		return Info{s}, nil
	}
	return Info{spec.Spec{Module: "example.org/hello", Version: p.Version, GOOS: "linux", GOARCH: "amd64", GoVersion: p.GoVersion}}, nil
}

// exe is what every version's binary is made of.
func (b *bench) exe() string {
	if b.program != "" {
		return b.program
	}
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return exe
}

// place makes the binary of a version.
func (b *bench) place(version string) string {
	b.t.Helper()
	exe := b.exe()
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

func (b *bench) Ask(_ context.Context, module string) (Known, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if module == selfModule {
		k := Known{Source: "test", Proof: "by hand"}
		for _, v := range b.self {
			k.Releases = append(k.Releases, policy.Release{Version: v})
		}
		return k, nil
	}
	if v, ok := b.majors[module]; ok {
		return Known{Releases: []policy.Release{{Version: v}}, Source: "test"}, nil
	}
	return Known{Releases: slices.Clone(b.releases), GoReleases: slices.Clone(b.gos), Source: "test", Proof: "by hand", LogSize: 7}, b.askErr
}

func (b *bench) Withdrawn(context.Context, string, string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.withdrawn, nil
}

func (b *bench) List(context.Context, string, string) ([]policy.Release, error) { return nil, nil }

func (b *bench) Lookup(ctx context.Context, s spec.Spec, progress func(Progress)) (Binary, error) {
	b.mu.Lock()
	err, slow := b.lookErr, b.slow
	if b.look != nil && err == nil {
		err = b.look(s)
	}
	b.mu.Unlock()
	progress(Progress{Step: "building"})
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return Binary{}, ctx.Err()
		}
	}
	sum, size, _ := install.Sum(b.exe())
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
	_ = os.Remove(file)
	if err := durable.Try("create", file); err != nil {
		return err
	}
	if b.content != nil {
		return os.WriteFile(file, []byte(*b.content), 0o755)
	}
	if err := link(b.exe(), file); err != nil || !b.syncs {
		return err
	}
	return errors.Join(durable.SyncFile(file), durable.SyncDir(filepath.Dir(file)))
}

// start runs the supervisor.
func (b *bench) start() {
	b.t.Helper()
	b.deps.Runner = process.NewOS(b.cfg.State, b.deps.Log)
	if r, ok := b.deps.Runner.(*process.OS); ok {
		b.deps.Commands = r.Command
	}
	b.reg = metric.New()
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
	case <-time.After(2 * time.Minute):
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

// wait waits for the supervisor's own end.
func (b *bench) wait() {
	b.t.Helper()
	select {
	case <-b.ended:
	case <-time.After(2 * time.Minute):
		b.t.Fatal("the supervisor does not end")
	}
}

// patient gives versions that are started from now on all the time they need.
func (b *bench) patient() {
	cfg := b.cfg
	cfg.Health.StartTime = config.Duration(time.Minute)
	b.engine.cfg.Store(&cfg)
}

// said waits for a text in the service's output, which arrives by a way of its own.
func (b *bench) said(text string) {
	b.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(strings.Join(b.engine.Logs(50), "\n"), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("no %q in the service's output: %q", text, b.engine.Logs(50))
		}
	}
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
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
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
	for _, m := range b.reg.Samples() {
		var have []string
		for i, l := range m.Labels {
			have = append(have, l+"="+m.Values[i])
		}
		switch {
		case m.Name != name || !slices.Equal(have, labels):
		case m.Kind == metric.KindHistogram:
			return float64(m.Counts[len(m.Counts)-1])
		default:
			return m.Value
		}
	}
	b.t.Fatalf("no metric %s %v", name, labels)
	return 0
}
