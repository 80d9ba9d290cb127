package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/acme"
	"example.org/upkeep/web/login"
	"example.org/upkeep/web/servicepage"
)

// pageConfig makes the pages' settings of the configuration: who may use them
// and where they are served.
func pageConfig(cfg Config, log *slog.Logger) (servicepage.Config, web.Listen, error) {
	w := cfg.Web
	listen := web.Listen{Addr: w.Listen, Cert: w.Cert, Key: w.Key, Plain: w.Plain, ACME: acme.Config{
		Directory: w.ACME, Names: acme.Names(w.Hosts), Dir: filepath.Join(cfg.State, "acme"), Contact: w.Contact, Roots: w.Roots, Log: log}}
	page := servicepage.Config{
		Security: web.Security{Hosts: w.Hosts, HTTPS: listen.TLS() || w.Plain, Log: log},
		Builder:  cfg.Fetch.Builder, ReleaseNotes: w.ReleaseNotes, Version: w.PublicVersion, Log: log,
		EditSettings: w.EditConfig,
	}
	accessName := accessFile(cfg)
	access, err := login.ReadAccess(accessName)
	if err != nil {
		return page, listen, err
	}
	if len(access.Users) > 0 || w.UserHeader != "" {
		gate := login.Config{File: accessName, Header: w.UserHeader, Proxies: w.Proxies, HTTPS: page.Security.HTTPS, Program: "upkeep", Log: log}
		if w.PublicVersion {
			gate.Open = []string{"/version"}
		}
		if page.Login, err = login.New(gate); err != nil {
			return page, listen, err
		}
		listen.Login = true
	}
	return page, listen, listen.Check()
}

// servePage serves the web page and the metrics until ctx ends.
func servePage(ctx context.Context, wg *sync.WaitGroup, cfg Config, file string, engine supervisor.Controller, registry *metric.Registry, log *slog.Logger) error {
	page, listen, err := pageConfig(cfg, log)
	if err != nil {
		return err
	}
	l, err := listen.Open(ctx)
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(fmt.Errorf("another program listens on %s: %w", listen.Addr, err), "Choose another address with the key web.listen.")
	}
	if err != nil {
		return err
	}
	page.Settings = settings{file}
	if cfg.Web.Metrics == "" {
		page.Metrics = registry
	} else if err := serveMetrics(ctx, wg, cfg.Web, registry, log); err != nil {
		log.Error("no metrics", "err", err)
	}
	serveOn(ctx, wg, l, servicepage.New(page, engine), log)
	log.Info("web page", "address", listen.Scheme()+"://"+l.Addr().String()+"/", "login", listen.Login)
	return nil
}

// serveMetrics serves the metrics on an address of their own.
func serveMetrics(ctx context.Context, wg *sync.WaitGroup, w supervisor.WebConfig, metrics http.Handler, log *slog.Logger) error {
	l, err := net.Listen("tcp", w.Metrics)
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(fmt.Errorf("another program listens on %s: %w", w.Metrics, err), "Choose another address with the key web.metrics.")
	}
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	serveOn(ctx, wg, l, web.Secure(web.Security{Hosts: w.Hosts, Log: log}, mux), log)
	log.Info("metrics", "address", "http://"+l.Addr().String()+"/metrics")
	return nil
}

// serveOn serves until ctx ends.
func serveOn(ctx context.Context, wg *sync.WaitGroup, l net.Listener, h http.Handler, log *slog.Logger) {
	srv := web.NewServer(h, log)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	context.AfterFunc(ctx, func() { srv.Close() })
	wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving", "address", l.Addr().String(), "err", err)
		}
	})
}
