package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/metric/prom"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/follow"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/watch"
)

// maxWait bounds the time between two tries to reach the log at the start.
const maxWait = time.Minute

// feed keeps the index up to date until ctx ends.
func feed(ctx context.Context, c Config, db goproxy.SumDB, store *index.Store, reg prometheus.Registerer, log *slog.Logger) error {
	client, proxy, err := openLog(ctx, c, db, reg, log)
	if err != nil || client == nil {
		return err
	}
	if c.Log.Mode == "watch" {
		return watch.Run(ctx, watch.Config{
			Modules: c.Watch.Modules, Toolchain: c.Watch.Toolchain, Interval: c.Log.Interval.D(),
			Proxy: proxy, Log: client, Store: store, Logger: log, Metrics: reg,
		})
	}
	err = follow.Run(ctx, follow.Config{Log: client, Store: store, Interval: c.Log.Interval.D(), Parallel: c.Log.Parallel, Logger: log, Metrics: reg})
	err = noDataTiles(err)
	if head, herr := store.Head(); err != nil && herr == nil && head.Size > 0 {
		// What is known goes on being served, until it is too old.
		log.Error("following the log has ended; answers come from the stored index", "err", err)
		<-ctx.Done()
		return nil
	}
	return err
}

// openLog makes the client of the log; the proxy is nil when none is
// configured. The client is nil when ctx ended first.
func openLog(ctx context.Context, c Config, db goproxy.SumDB, reg prometheus.Registerer, log *slog.Logger) (*tlog.Client, *goproxy.Client, error) {
	hc := &http.Client{Timeout: 2 * time.Minute}
	var proxy *goproxy.Client
	if c.Log.Proxy != "" {
		var err error
		if proxy, err = goproxy.New(c.Log.Proxy, hc); err != nil {
			return nil, nil, err
		}
	}
	if c.Log.URL == "" && proxy != nil {
		url, ok := findLog(ctx, proxy, db, log)
		if !ok {
			return nil, nil, nil
		}
		db.URL = url
	}
	log.Info("reading the log", "log", db.Name, "url", redacted(db.URL), "mode", c.Log.Mode)
	var tiles *tlog.TileDir
	if c.Log.Tiles != "" {
		var err error
		if tiles, err = tlog.OpenTileDir(c.Log.Tiles, log); err != nil {
			return nil, nil, err
		}
	}
	client, err := tlog.NewClient(tlog.ClientConfig{Key: db.Key, URL: db.URL, Dir: c.stateDir(db), Tiles: tiles,
		Limits: tlog.Limits{Requests: c.Log.Requests, Bytes: c.Log.Bytes}, Logger: log, Metrics: prom.Bridge(reg)})
	return client, proxy, err
}

// redacted is a URL without a password.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(malformed)"
	}
	return u.Redacted()
}

// noDataTiles adds what to do to the error of a log that can't be followed.
func noDataTiles(err error) error {
	if errors.Is(err, tlog.ErrNoDataTiles) {
		return cli.Hint(err, "Read the log directly (log.url or -url), or watch modules (log.mode or -watch).")
	}
	return err
}

// findLog asks the proxy whether it carries the log, until it answers: the
// zone is served from the stored index meanwhile.
func findLog(ctx context.Context, proxy *goproxy.Client, db goproxy.SumDB, log *slog.Logger) (string, bool) {
	wait := time.Second
	for {
		url, err := proxy.SumDBURL(ctx, db)
		if err == nil {
			return url, true
		}
		if ctx.Err() != nil {
			return "", false
		}
		log.Error("finding the log; answers come from the stored index", "err", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return "", false
		case <-time.After(wait + rand.N(wait/4)):
		}
		wait = min(2*wait, maxWait)
	}
}
