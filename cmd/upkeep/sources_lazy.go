package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/supervisor/policy"
)

// lazySources makes discovery and fetching when they are first needed, so that
// their mistakes and their time don't delay the service.
type lazySources struct {
	cfg     Config
	log     *slog.Logger
	metrics prometheus.Registerer

	mu   sync.Mutex
	v    *versions
	b    *binaries
	dErr error
	fErr error
}

func (l *lazySources) get() (*versions, *binaries, error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.v == nil {
		l.v = &versions{}
		f, err := fetch.New(l.cfg.Fetch, fetch.Options{Logger: l.log, Metrics: l.metrics})
		l.v.f, l.b, l.fErr = f, &binaries{f}, err
		opt := discover.Options{Dir: filepath.Join(l.cfg.State, "discovery"), Logger: l.log, Metrics: l.metrics}
		if f != nil {
			opt.Fallback = f
		}
		l.v.d, l.dErr = discover.New(l.cfg.Discovery, opt)
	}
	return l.v, l.b, l.dErr, l.fErr
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
