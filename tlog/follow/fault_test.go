package follow

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

var content = logtest.Content{Spread: 1000}

func setUp(t *testing.T, key, url string) (*tlog.Client, *index.Store) {
	t.Helper()
	dir := t.TempDir()
	c, err := tlog.NewClient(tlog.ClientConfig{Key: key, URL: url, Dir: dir, Attempts: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	store, err := index.Open(filepath.Join(dir, "index.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return c, store
}

// waitFor waits until the index has reached a size.
func waitFor(ctx context.Context, t *testing.T, store *index.Store, size int64) {
	t.Helper()
	for {
		changed := store.Changed()
		head, err := store.Head()
		if err != nil {
			t.Fatal(err)
		}
		if head.Size == size {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the index is at %d; want %d", head.Size, size)
		}
	}
}

// A log that forks, shrinks, is out of reach and honest again: the index stays
// where it was, says why in a metric, and goes on with the honest log.
func TestRunThroughLies(t *testing.T) {
	signer, verifier, err := tlog.GenerateKey("db.example.org")
	if err != nil {
		t.Fatal(err)
	}
	honest, err := logtest.NewServer(signer, content, 3000)
	if err != nil {
		t.Fatal(err)
	}
	lie := content
	lie.ForkAt = 2500
	forked, err := logtest.NewServer(signer, lie, 4000)
	if err != nil {
		t.Fatal(err)
	}
	old, err := logtest.NewServer(signer, content, 2000)
	if err != nil {
		t.Fatal(err)
	}
	down := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "down", http.StatusBadGateway) })
	var now atomic.Value
	type handler struct{ http.Handler }
	now.Store(handler{honest})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now.Load().(handler).ServeHTTP(w, r)
	}))
	defer srv.Close()
	c, store := setUp(t, verifier, srv.URL)
	reg := prometheus.NewRegistry()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	r := &runner{Config: Config{Log: c, Store: store, Logger: slog.New(slog.DiscardHandler)}, metrics: newMetrics(reg)}
	round := func() error { return r.round(ctx) }
	if err := round(); err != nil {
		t.Fatal(err)
	}
	var fork *tlog.ForkError
	for _, tc := range []struct {
		name    string
		h       http.Handler
		results string // that must be counted
		is      func(error) bool
	}{
		{"fork", forked, "fork", func(err error) bool { return errors.As(err, &fork) }},
		{"shrunk", old, "error", func(err error) bool { return errors.Is(err, tlog.ErrShrunk) }},
		{"down", down, "error", func(err error) bool { return err != nil }},
		{"honest", honest, "ok", func(err error) bool { return err == nil }},
	} {
		now.Store(handler{tc.h})
		before := testutil.ToFloat64(r.metrics.rounds.WithLabelValues(tc.results))
		if err := round(); !tc.is(err) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if after := testutil.ToFloat64(r.metrics.rounds.WithLabelValues(tc.results)); after != before+1 {
			t.Errorf("%s: result %q was counted %v times", tc.name, tc.results, after-before)
		}
		if head, err := store.Head(); err != nil || head.Size != 3000 {
			t.Errorf("%s: the index is at %d, %v; want 3000", tc.name, head.Size, err)
		}
	}
	// And all by itself.
	now.Store(handler{down})
	go func() {
		done <- Run(ctx, Config{Log: c, Store: store, Interval: MinInterval, Logger: slog.New(slog.DiscardHandler)})
	}()
	now.Store(handler{honest})
	if err := honest.SetSize(3500); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, store, 3500)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunNoDataTiles(t *testing.T) {
	s, err := logtest.NewServer("", content, 1000)
	if err != nil {
		t.Fatal(err)
	}
	s.SetFaults(logtest.Faults{RefuseData: true})
	srv := httptest.NewServer(s)
	defer srv.Close()
	c, store := setUp(t, s.VerifierKey(), srv.URL)
	err = Run(t.Context(), Config{Log: c, Store: store, Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, tlog.ErrNoDataTiles) || !strings.Contains(err.Error(), "watch a list of modules") {
		t.Errorf("got %v; want ErrNoDataTiles with advice", err)
	}
}

// With Once, an end before the index has caught up is an error: scripts go by it.
func TestOnceInterrupted(t *testing.T) {
	s, err := logtest.NewServer("", content, 1000)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.SetFaults(logtest.Faults{Before: func(r *http.Request) {
		if strings.Contains(r.URL.Path, "/data/") {
			cancel()
			<-r.Context().Done()
		}
	}})
	srv := httptest.NewServer(s)
	defer srv.Close()
	c, store := setUp(t, s.VerifierKey(), srv.URL)
	if err := Run(ctx, Config{Log: c, Store: store, Once: true, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v; want an error that says so", err)
	}
	s.SetFaults(logtest.Faults{})
	if err := Run(t.Context(), Config{Log: c, Store: store, Once: true, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("in the next run: %v", err)
	}
}

// Whatever this machine's clock says, the index holds the log's time; the
// difference is told once.
func TestClocksPart(t *testing.T) {
	s, err := logtest.NewServer("", content, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer srv.Close()
	c, store := setUp(t, s.VerifierKey(), srv.URL)
	var log bytes.Buffer
	r := &runner{Config: Config{Log: c, Store: store, Once: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}, metrics: newMetrics(prometheus.NewRegistry())}
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	logTime := time.Unix(store.LogTime(), 0)
	if truth := time.Unix(content.Time(20_000-1), 0); logTime.Sub(truth).Abs() > 6*time.Hour {
		t.Fatalf("the log's time is %v; want about %v", logTime, truth)
	}
	for i, tc := range []struct {
		now  time.Time
		warn bool
	}{
		{logTime.Add(30 * time.Minute), false},
		{logTime.Add(2 * time.Hour), true},
		{logTime.Add(3 * time.Hour), false}, // told already
		{logTime, false},
		{logTime.AddDate(-30, 0, 0), true}, // the clock jumped
	} {
		if i == 0 {
			r.drifted = false
		}
		log.Reset()
		r.compareClocks(tc.now)
		if warned := strings.Contains(log.String(), "differ by more than an hour"); warned != tc.warn {
			t.Errorf("with the clock at %v: warned is %v; want %v", tc.now, warned, tc.warn)
		}
		if got := testutil.ToFloat64(r.metrics.drifts); got != tc.now.Sub(logTime).Seconds() {
			t.Errorf("metric of the difference is %v", got)
		}
	}
}
