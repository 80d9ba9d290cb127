package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/sources"
)

// lazySources makes discovery and fetching when they are first needed, so that
// their mistakes and their time don't delay the service.
type lazySources struct {
	cfg     Config
	log     *slog.Logger
	metrics *metric.Registry

	mu   sync.Mutex
	v    *sources.Versions
	b    *sources.Binaries
	dErr error
	fErr error
}

func (l *lazySources) get() (*sources.Versions, *sources.Binaries, error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// What went wrong, such as a file that was missing, may be right by now.
	if l.v == nil || l.dErr != nil || l.fErr != nil {
		v, b, dErr, fErr := l.open(l.cfg)
		if l.v == nil || (dErr == nil) != (l.dErr == nil) || (fErr == nil) != (l.fErr == nil) {
			l.v, l.b, l.dErr, l.fErr = v, b, dErr, fErr
		} else if v.Discover != nil {
			v.Discover.Close() // nothing is better: what is known of the zone's keys stays
		}
	}
	return l.v, l.b, l.dErr, l.fErr
}

func (l *lazySources) open(cfg Config) (*sources.Versions, *sources.Binaries, error, error) {
	f, fErr := fetch.New(cfg.Fetch, fetch.Options{Logger: l.log, Metrics: l.metrics})
	opt := discover.Options{Dir: filepath.Join(cfg.State, "discovery"), Logger: l.log, Metrics: l.metrics}
	if f != nil {
		opt.Fallback = f
	}
	d, dErr := discover.New(cfg.Discovery, opt)
	return &sources.Versions{Discover: d, Fetch: f}, &sources.Binaries{Fetch: f}, dErr, fErr
}

// prepare makes what a new configuration asks for, unless it is wrong, and
// reads the files that it names again, such as the anchor. What was wrong before
// may stay so: else a service without sources could not get another setting.
// Nothing of it is in force before settle(true); what is under way then ends with
// the old one.
func (l *lazySources) prepare(cfg Config) (settle func(accepted bool), err error) {
	_, _, dBefore, fBefore := l.get()
	v, b, dErr, fErr := l.open(cfg)
	settle = func(accepted bool) {
		if !accepted {
			if v.Discover != nil {
				v.Discover.Close()
			}
			if v.Fetch != nil {
				v.Fetch.Close()
			}
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cfg, l.v, l.b, l.dErr, l.fErr = cfg, v, b, dErr, fErr
	}
	if dErr != nil && dBefore == nil {
		err = dErr
	}
	if fErr != nil && fBefore == nil {
		err = errors.Join(err, fErr)
	}
	if err != nil {
		settle(false)
		return nil, err
	}
	return settle, nil
}

func (l *lazySources) Ask(ctx context.Context, module string) (supervisor.Known, error) {
	v, _, err, _ := l.get()
	if err != nil {
		return supervisor.Known{}, err
	}
	return v.Ask(ctx, module)
}

func (l *lazySources) List(ctx context.Context, module, line string) ([]policy.Release, error) {
	v, _, _, err := l.get()
	if err != nil {
		return nil, err
	}
	return v.List(ctx, module, line)
}

func (l *lazySources) Withdrawn(ctx context.Context, module, version string) (string, error) {
	v, _, _, err := l.get()
	if err != nil {
		return "", err
	}
	return v.Withdrawn(ctx, module, version)
}

func (l *lazySources) Lookup(ctx context.Context, s spec.Spec, progress func(supervisor.Progress)) (supervisor.Binary, error) {
	_, b, _, err := l.get()
	if err != nil {
		return supervisor.Binary{}, err
	}
	return b.Lookup(ctx, s, progress)
}

func (l *lazySources) Download(ctx context.Context, bin supervisor.Binary, file string, progress func(supervisor.Progress)) error {
	_, b, _, err := l.get()
	if err != nil {
		return err
	}
	return b.Download(ctx, bin, file, progress)
}
