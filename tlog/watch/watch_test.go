package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// A world is a module proxy and a checksum database with what was published.
type world struct {
	t     *testing.T
	log   *tlog.Log
	store *index.Store
	cfg   Config

	mu       sync.Mutex
	versions map[string][]string
	times    map[string]time.Time
	lists    int
	lookups  map[string]int
	fail     error
}

func newWorld(t *testing.T, modules ...string) *world {
	t.Helper()
	signer, verifier, err := tlog.GenerateKey("db.example.org")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, versions: map[string][]string{}, times: map[string]time.Time{}, lookups: map[string]int{}}
	if w.log, err = tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.log.Close() })
	srv := httptest.NewServer(w.log.Handler(nil))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	c, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: srv.URL, Dir: dir, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = index.Open(filepath.Join(dir, "index.db"), index.Options{Kind: index.Watching}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	w.cfg = Config{Modules: modules, Interval: MinInterval, Proxy: w, Log: countingLog{c, w}, Store: w.store, Logger: slog.New(slog.DiscardHandler)}
	return w
}

type countingLog struct {
	*tlog.Client
	w *world
}

func (l countingLog) Lookup(ctx context.Context, key string) (tlog.Record, error) {
	l.w.mu.Lock()
	l.w.lookups[key]++
	l.w.mu.Unlock()
	return l.Client.Lookup(ctx, key)
}

func (w *world) List(ctx context.Context, path string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lists++
	if w.fail != nil {
		return nil, w.fail
	}
	vs, ok := w.versions[path]
	if !ok {
		return nil, &goproxy.MissingError{What: path}
	}
	var tagged []string
	for _, v := range vs {
		if !strings.HasPrefix(v, "v0.0.0-2") {
			tagged = append(tagged, v)
		}
	}
	return tagged, nil
}

func (w *world) Latest(ctx context.Context, path string) (goproxy.Info, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return goproxy.Info{Version: w.versions[path][0]}, nil
}

func (w *world) Info(ctx context.Context, path, version string) (goproxy.Info, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.times[version]
	if !ok {
		return goproxy.Info{}, errors.New("no info")
	}
	return goproxy.Info{Version: version, Time: at}, nil
}

const hash = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

// publish makes versions known to the proxy, and to the log unless they start with "-".
func (w *world) publish(path string, versions ...string) {
	w.t.Helper()
	for _, v := range versions {
		v, inLog := strings.TrimPrefix(v, "-"), !strings.HasPrefix(v, "-")
		if inLog {
			e := tlog.Entry{Key: path + "@" + v, Text: fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", path, v, hash, path, v, hash)}
			if _, err := w.log.Append(w.t.Context(), e); err != nil {
				w.t.Fatal(err)
			}
		}
		w.mu.Lock()
		w.versions[path] = append(w.versions[path], v)
		w.mu.Unlock()
	}
}

// poll does one poll of a module.
func (w *world) poll(path string, unproven map[string]retry) error {
	watcher, err := newWatcher(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return watcher.poll(w.t.Context(), path, unproven)
}

func TestRetry(t *testing.T) {
	var r retry
	now := time.Unix(1700000000, 0)
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 360, 360} {
		if r = r.next(now); r.at.Sub(now) != want*time.Minute {
			t.Errorf("retry %d after %v; want %v minutes", i, r.at.Sub(now), int(want))
		}
	}
}

func TestPoll(t *testing.T) {
	const path = "example.org/hello"
	w := newWorld(t, path)
	made := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	w.times["v1.0.0"] = made
	w.times["v1.0.1"] = made
	w.publish(path, "v1.0.0", "v0.9.9")
	unproven := map[string]retry{}
	begin := time.Now().Unix()
	if err := w.poll(path, unproven); err != nil {
		t.Fatal(err)
	}
	m, ok, err := w.store.Module(path)
	if err != nil || !ok || len(m.Majors) != 2 || m.Majors[0].Version != "v1.0.0" || m.Majors[1].Version != "v0.9.9" {
		t.Fatalf("Module: %+v, %v, %v", m, ok, err)
	}
	// At the first poll the proxy's time counts; where it tells none, now.
	if m.Majors[0].Time != made.Unix() || m.Majors[1].Time < begin {
		t.Errorf("times are %d and %d; want %d and now", m.Majors[0].Time, m.Majors[1].Time, made.Unix())
	}
	// Later the time is when it was first seen, and what is known is not asked for again.
	w.publish(path, "v1.0.1", "-v1.0.2")
	for range 3 {
		if err := w.poll(path, unproven); err != nil {
			t.Fatal(err)
		}
	}
	if m, _, _ = w.store.Module(path); m.Majors[0].Version != "v1.0.1" || m.Majors[0].Time < begin || m.Majors[0].Record != 2 {
		t.Errorf("after publishing v1.0.1 and an unproven v1.0.2: %+v", m)
	}
	for v, want := range map[string]int{"v1.0.0": 1, "v0.9.9": 1, "v1.0.1": 1, "v1.0.2": 1} {
		// The newest of a line is asked for alone: v1.0.1 waits until v1.0.2 proves to be none.
		if got := w.lookups[path+"@"+v]; got != want {
			t.Errorf("%s was looked up %d times; want %d", v, got, want)
		}
	}
	// The index is not ready before all modules were polled once.
	head, err := w.store.Head()
	if err != nil || head.Size != 0 || !head.Accepted.IsZero() {
		t.Errorf("Head before SetHead: %+v, %v", head, err)
	}
	newest, err := w.cfg.Log.Update(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	polled := time.Now().Add(-time.Hour).UTC()
	if err := w.store.SetHead(newest, polled); err != nil {
		t.Fatal(err)
	}
	head, err = w.store.Head()
	if err != nil || head.Size != 3 || head.Hash != w.log.Head().Hash || !head.Accepted.Equal(polled) {
		t.Errorf("Head: %+v, %v; want 3 records, read %v", head, err, polled)
	}
}

// A tree head that is older than the index changes no answer.
func TestOlderHead(t *testing.T) {
	const path = "example.org/hello"
	w := newWorld(t, path)
	w.publish(path, "v1.0.0")
	old, err := w.cfg.Log.Update(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetHead(old, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.publish(path, "v1.0.1")
	if err := w.poll(path, map[string]retry{}); err != nil {
		t.Fatal(err)
	}
	changed := w.store.Changed()
	if err := w.store.SetHead(old, time.Now()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("the index says that it changed")
	default:
	}
	if head, err := w.store.Head(); err != nil || head.Size != 2 {
		t.Errorf("Head: %+v, %v", head, err)
	}
	// Nor does a time before that of a version that was found since.
	before, err := w.store.Head()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.SetHead(old, before.Accepted.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if head, err := w.store.Head(); err != nil || !head.Accepted.Equal(before.Accepted) {
		t.Errorf("Head is of %v, %v; want %v", head.Accepted, err, before.Accepted)
	}
}

// When the first poll of a module is cut short, the second counts as the first:
// the proxy's times go on counting.
func TestPollCutShort(t *testing.T) {
	const path = "example.org/hello"
	w := newWorld(t, path)
	made := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	w.times["v1.0.0"], w.times["v1.1.0"] = made, made
	w.publish(path, "v1.0.0", "v1.1.0")
	lookup := w.cfg.Log
	w.cfg.Log = brokenLog{lookup, path + "@v1.0.0"}
	if err := w.poll(path, map[string]retry{}); err == nil {
		t.Error("no error")
	}
	w.cfg.Log = lookup
	if err := w.poll(path, map[string]retry{}); err != nil {
		t.Error(err)
	}
	m, _, err := w.store.Module(path)
	if err != nil || len(m.Minors) != 2 || m.Minors[0].Time != made.Unix() || m.Minors[1].Time != made.Unix() {
		t.Errorf("Module: %+v, %v; want both versions of %v", m, err, made)
	}
}

// A brokenLog can't look up one key.
type brokenLog struct {
	Log
	key string
}

func (l brokenLog) Lookup(ctx context.Context, key string) (tlog.Record, error) {
	if key == l.key {
		return tlog.Record{}, errors.New("log is away")
	}
	return l.Log.Lookup(ctx, key)
}

func TestPollPseudoAndToolchain(t *testing.T) {
	w := newWorld(t, "example.org/untagged")
	w.cfg.Toolchain = true
	w.publish("example.org/untagged", "v0.0.0-20240506070809-0123456789ab")
	w.publish(Toolchain, "v0.0.1-go1.26.9.linux-amd64", "v0.0.1-go1.26.11.darwin-arm64", "v0.0.1-go1.26.11.linux-amd64",
		"v0.0.1-go1.27.4.linux-amd64", "v0.0.1-go1.27.3.linux-amd64", "v0.0.1-go1.28rc1.linux-amd64", "v0.0.1-go1.25.14.linux-amd64")
	for _, path := range []string{"example.org/untagged", Toolchain} {
		if err := w.poll(path, map[string]retry{}); err != nil {
			t.Fatal(err)
		}
	}
	m, ok, err := w.store.Module("example.org/untagged")
	if err != nil || !ok || len(m.Majors) != 0 || m.Pseudo == nil || m.Pseudo.Record != 0 {
		t.Errorf("untagged module: %+v, %v, %v", m, ok, err)
	}
	tools, err := w.store.Toolchains()
	var got string
	for _, tc := range tools {
		got += tc.Version + " " + tc.Kind + "; "
	}
	if err != nil || got != "go1.27.4 cur; go1.26.11 prev; go1.28rc1 next; " {
		t.Errorf("Toolchains: %s, %v", got, err)
	}
	if len(w.lookups) != 4 || w.lookups[Toolchain+"@v0.0.1-go1.26.11.linux-amd64"] != 1 {
		t.Errorf("looked up %v; want one version for each toolchain that counts", w.lookups)
	}
}

// Where a release has no record for Linux, another platform's proves it.
func TestPollToolchainElsewhere(t *testing.T) {
	w := newWorld(t)
	w.cfg.Toolchain = true
	w.publish(Toolchain, "v0.0.1-go1.27.4.darwin-arm64", "-v0.0.1-go1.27.4.linux-amd64", "v0.0.1-go1.27.3.linux-amd64", "v0.0.1-go1.26.11.linux-amd64")
	if err := w.poll(Toolchain, map[string]retry{}); err != nil {
		t.Fatal(err)
	}
	tools, err := w.store.Toolchains()
	if err != nil || len(tools) != 2 || tools[0].Version != "go1.27.4" || tools[1].Version != "go1.26.11" {
		t.Errorf("Toolchains: %v, %v", tools, err)
	}
}

// A proxy that lists versions without end costs neither time nor lookups.
func TestPollTooMany(t *testing.T) {
	const path = "example.org/hello"
	w := newWorld(t, path)
	for i := range 2000 {
		w.versions[path] = append(w.versions[path], fmt.Sprintf("v1.%d.0", i))
	}
	if err := w.poll(path, map[string]retry{}); err != nil {
		t.Fatal(err)
	}
	if len(w.lookups) != maxLookups {
		t.Errorf("%d versions were looked up; want %d", len(w.lookups), maxLookups)
	}
	for len(w.versions[path]) <= maxVersions {
		w.versions[path] = append(w.versions[path], w.versions[path]...)
	}
	if err := w.poll(path, map[string]retry{}); err == nil || !strings.Contains(err.Error(), "are not believed") {
		t.Errorf("too many versions: %v", err)
	}
}

// A database that answers with another version's record is not believed.
func TestPollWrongRecord(t *testing.T) {
	const path = "example.org/hello"
	w := newWorld(t, path)
	w.publish(path, "-v1.0.1")
	e := tlog.Entry{Key: path + "@v1.0.1", Text: fmt.Appendf(nil, "%s v1.0.0 %s\n%s v1.0.0/go.mod %s\n", path, hash, path, hash)}
	if _, err := w.log.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := w.poll(path, map[string]retry{}); err == nil || !strings.Contains(err.Error(), "record of something else") {
		t.Errorf("got %v", err)
	}
	if _, ok, _ := w.store.Module(path); ok {
		t.Error("the version is served")
	}
}

func TestRun(t *testing.T) {
	const path = "example.org/hello"
	w := newWorld(t, path, "example.org/unknown")
	reg := prometheus.NewRegistry()
	w.cfg.Metrics = reg
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	w.publish(path, "v1.0.0")
	go func() { done <- Run(ctx, w.cfg) }()
	for _, v := range []string{"v1.0.0", "v1.0.1", "v1.1.0"} {
		if v != "v1.0.0" {
			w.publish(path, v)
		}
		for {
			changed := w.store.Changed()
			m, ok, err := w.store.Module(path)
			if err != nil {
				t.Fatal(err)
			}
			if ok && m.Majors[0].Version == v {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("the index still has %v; want %s", m, v)
			}
		}
		// The proxy goes away for a moment; the index keeps what it has.
		w.mu.Lock()
		w.fail = errors.New("proxy is away")
		n := w.lists
		w.mu.Unlock()
		for again := false; !again; {
			w.mu.Lock()
			again = w.lists > n+1
			w.mu.Unlock()
			if ctx.Err() != nil {
				t.Fatal("the module is not polled again")
			}
			time.Sleep(time.Millisecond)
		}
		if _, ok, err := w.store.Module(path); !ok || err != nil {
			t.Errorf("while the proxy is away: %v, %v", ok, err)
		}
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "upkeep_watch_polls_total"); err != nil || n != 4 {
		t.Errorf("metric upkeep_watch_polls_total has %d values, %v", n, err)
	}
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "nothing to watch"},
		{Config{Modules: []string{"hello"}}, "module to watch"},
		{Config{Modules: []string{"example.org/x"}, Interval: time.Millisecond}, "too often"},
	} {
		if err := Run(t.Context(), tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v; want %q", tc.cfg, err, tc.want)
		}
	}
}
