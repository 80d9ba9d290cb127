// Package watch keeps an index of a few chosen modules up to date by asking
// the module proxy for their versions and the checksum database for proof.
//
// The module proxy is not trusted: it can hide versions, it can't invent them.
// While it tells nothing of any module, the index gets older. A new index is of
// no use to queries before each module was polled once.
// A version goes into the index only with a record in the checksum database
// that was proven to be under its signed tree head (package tlog). Times are
// as good as the proxy and this machine's clock. What was verified is in the
// index file and is not asked for again.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/module"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// Toolchain is the module whose versions are the releases of Go.
const Toolchain = "golang.org/toolchain"

// Config says what to watch.
type Config struct {
	Modules   []string      // module paths
	Toolchain bool          // also watch the releases of Go
	Interval  time.Duration // between two polls of the same module; up to a tenth is added or taken off

	Proxy   Proxy
	Log     Log
	Store   *index.Store
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// A Proxy tells versions; [*goproxy.Client] is one.
type Proxy interface {
	List(ctx context.Context, path string) ([]string, error)
	Latest(ctx context.Context, path string) (goproxy.Info, error)
	Info(ctx context.Context, path, version string) (goproxy.Info, error)
}

// A Log proves versions; [*tlog.Client] is one.
type Log interface {
	Name() string
	Update(ctx context.Context) (tlog.TreeHead, error)
	Lookup(ctx context.Context, key string) (tlog.Record, error)
}

// Defaults and limits.
const (
	DefaultInterval = 5 * time.Minute
	MinInterval     = 200 * time.Millisecond
	maxBackoff      = time.Hour
	pollTimeout     = 2 * time.Minute
	firstRetry      = 5 * time.Minute // before a version without a record is looked up again,
	lastRetry       = 6 * time.Hour   // doubled each time up to this
)

// Run polls until ctx ends. It returns an error only for a wrong
// configuration; what goes wrong later is logged, counted and tried again.
func Run(ctx context.Context, cfg Config) error {
	w, err := newWatcher(cfg)
	if err != nil {
		return err
	}
	head, err := w.Store.Head()
	if err != nil {
		return err
	}
	var wg, first sync.WaitGroup
	for i, path := range w.paths {
		// Spread the polls over the interval, but have all first answers soon.
		offset := time.Duration(i) * min(w.Interval/time.Duration(len(w.paths)), 250*time.Millisecond)
		first.Add(1)
		wg.Go(func() {
			polled := sync.OnceFunc(first.Done)
			defer polled()
			if sleep(ctx, offset) {
				w.watch(ctx, path, polled)
			}
		})
	}
	wg.Go(func() {
		if head.Accepted.IsZero() {
			first.Wait() // or a module that was not asked for yet would be denied
		}
		w.heads(ctx)
	})
	wg.Wait()
	return nil
}

type watcher struct {
	Config
	paths   []string
	metrics *metrics
	slots   chan struct{} // bounds polls at the same time
	told    atomic.Int64  // when a poll began in which the proxy told the versions of a module, Unix time in nanoseconds
	tells   chan struct{} // says that told changed
}

func newWatcher(cfg Config) (*watcher, error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Interval < MinInterval {
		return nil, fmt.Errorf("polling modules every %v is too often: at least %v", cfg.Interval, MinInterval)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	w := &watcher{Config: cfg, metrics: newMetrics(cfg.Metrics), slots: make(chan struct{}, 4), tells: make(chan struct{}, 1)}
	seen := map[string]bool{}
	add := func(path string) {
		if !seen[path] {
			seen[path] = true
			w.paths = append(w.paths, path)
		}
	}
	if cfg.Toolchain {
		add(Toolchain)
	}
	for _, path := range cfg.Modules {
		if err := module.CheckPath(path); err != nil {
			return nil, fmt.Errorf("module to watch: %w", err)
		}
		add(path)
	}
	if len(w.paths) == 0 {
		return nil, errors.New("nothing to watch: name at least one module")
	}
	w.metrics.modules(len(w.paths))
	return w, nil
}

// watch polls one module for ever; polled is called after each poll.
func (w *watcher) watch(ctx context.Context, path string, polled func()) {
	unproven := map[string]retry{} // by version
	failures := 0
	for {
		asked := time.Now()
		err := w.poll(ctx, path, unproven)
		if ctx.Err() != nil {
			return
		}
		w.metrics.poll(err)
		if err == nil || errors.Is(err, goproxy.ErrNotFound) {
			w.told.Store(asked.UnixNano())
			select {
			case w.tells <- struct{}{}:
			default:
			}
		}
		polled()
		wait := w.Interval
		if err != nil {
			failures++
			wait = backoff(w.Interval, failures)
			w.Logger.Error("module could not be polled; the index keeps what it has of it", "module", path, "err", err, "again_in", wait)
		} else {
			failures = 0
		}
		if !sleep(ctx, jittered(wait)) {
			return
		}
	}
}

// heads keeps the tree head fresh while no module has news. When the module
// proxy tells nothing of any module the index gets older with it: nobody knows
// then whether there is news.
func (w *watcher) heads(ctx context.Context) {
	var (
		head        tlog.TreeHead
		read, noted time.Time // when the log was read, and up to when the index knows of both
		failures    int
	)
	note := func() error {
		told := w.told.Load()
		if told == 0 || read.IsZero() {
			return nil
		}
		at := time.Unix(0, told)
		if read.Before(at) {
			at = read
		}
		if !at.After(noted) && !noted.After(time.Now()) { // a clock that was ahead counts no more
			return nil
		}
		err := w.Store.SetHead(head, at)
		if err == nil {
			noted = at
		}
		return err
	}
	for {
		asked := time.Now().Round(0) // by the wall clock, as what is stored
		newest, err := w.Log.Update(ctx)
		if err == nil {
			head, read = newest, asked
			err = note()
		}
		wait := w.Interval
		if err != nil && ctx.Err() == nil {
			failures++
			wait = backoff(w.Interval, failures)
			w.Logger.Error("no new tree head of the checksum database", "log", w.Log.Name(), "err", err, "again_in", wait)
		} else {
			failures = 0
		}
		for next := time.After(jittered(wait)); next != nil; {
			select {
			case <-ctx.Done():
				return
			case <-next:
				next = nil
			case <-w.tells:
				if err := note(); err != nil {
					w.Logger.Error("the index can't note that modules were polled", "err", err)
				}
			}
		}
	}
}

// jittered is d with up to a tenth added or taken off.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*float64(d)/5)
}

func backoff(interval time.Duration, failures int) time.Duration {
	return min(interval<<min(failures-1, 5), max(interval, maxBackoff))
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
