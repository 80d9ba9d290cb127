// Package follow keeps an index of a whole checksum database up to date by
// reading every record of its log.
//
// What it trusts and what it keeps on disk is said in packages tlog and index.
// An unreachable, forked or lying log stops the index where it is and nothing
// else: it goes on answering, and following goes on when the log does.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// Config says what to follow.
type Config struct {
	Log      *tlog.Client
	Store    *index.Store
	Interval time.Duration // between two polls for a new tree head; up to a tenth is added or taken off
	Once     bool          // return when the index has reached the log's tree head
	Parallel int           // tiles fetched at the same time, 0 for the default

	Progress func(Progress) // called about once a second while catching up takes longer than that, and at its end
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
}

// Defaults and limits.
const (
	DefaultInterval = time.Minute
	MinInterval     = 200 * time.Millisecond
	maxBackoff      = 10 * time.Minute
	maxDrift        = time.Hour // between the log's time and this machine's
)

// Run follows the log until ctx ends (or, with Once, until it has caught up; it is
// an error if ctx ends before).
// Errors that can pass are logged, counted and tried again; with Once, and for
// a log without data tiles, they are returned.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Interval < MinInterval {
		return fmt.Errorf("polling a log every %v is too often: at least %v", cfg.Interval, MinInterval)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	r := &runner{Config: cfg, metrics: newMetrics(cfg.Metrics)}
	failures := 0
	for {
		err := r.round(ctx)
		if ctx.Err() != nil && !cfg.Once {
			return nil
		}
		if cfg.Once || errors.Is(err, tlog.ErrNoDataTiles) || errors.Is(err, index.ErrCorrupt) {
			return err
		}
		wait := cfg.Interval
		if err != nil {
			failures++
			wait = backoff(cfg.Interval, failures)
			cfg.Logger.Error("following the log failed; the index stays as it is", "log", cfg.Log.Name(), "err", err, "again_in", wait)
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jitter(wait, rand.Float64())):
		}
	}
}

// backoff returns how long to wait after a number of failures in a row.
func backoff(interval time.Duration, failures int) time.Duration {
	return min(interval<<min(failures-1, 5), max(interval, maxBackoff))
}

// jitter adds or takes off up to a tenth, so that many followers don't poll in
// step; random is from 0 to 1.
func jitter(d time.Duration, random float64) time.Duration {
	return d + time.Duration((random-0.5)*float64(d)/5)
}

type runner struct {
	Config
	metrics *metrics
	drifted bool
}

// round polls once and catches up.
func (r *runner) round(ctx context.Context) (err error) {
	defer func() { r.metrics.round(err) }()
	head, err := r.Log.Update(ctx)
	if errors.Is(err, tlog.ErrStale) {
		r.Logger.Warn("the log's server is behind", "err", err)
		head, _ = r.Log.Head()
	} else if err != nil {
		// What was accepted before may not be in the index yet.
		kept, ok := r.Log.Head()
		if !ok || kept.Size <= r.Store.Edge().Size {
			return err
		}
		r.Logger.Error("the log gave no new tree head; reading up to the one accepted before", "err", err)
		head = kept
	}
	p := newProgress(r.Config, r.Store.Edge().Size, head.Size, time.Now())
	if err2 := r.Store.Follow(ctx, r.Log, head, r.Parallel, p.done); err2 != nil {
		return errors.Join(err, err2)
	}
	if err == nil {
		err = r.Store.Agree(r.Log.Checked())
	}
	p.finish()
	r.compareClocks(time.Now())
	return err
}

// compareClocks warns when the time in the log and this machine's part: then
// either this clock is wrong, or many commit times in the log are.
func (r *runner) compareClocks(now time.Time) {
	t := r.Store.LogTime()
	if t == 0 {
		return
	}
	drift := now.Sub(time.Unix(t, 0))
	r.metrics.drift(drift)
	drifted := drift.Abs() > maxDrift
	if drifted && !r.drifted {
		r.Logger.Warn("the time in the log and this machine's clock differ by more than an hour", "log_time", time.Unix(t, 0).UTC(), "difference", drift.Round(time.Second))
	}
	r.drifted = drifted
}
