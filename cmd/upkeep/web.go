package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

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

// listenTCP names the key of an address that can't be had.
func listenTCP(key, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", key, err)
	}
	return l, nil
}

// doors are what the configuration has this program listen on.
func doors(cfg Config, file string, engine supervisor.Controller, registry *metric.Registry, log *slog.Logger) ([]supervisor.Door, error) {
	socket := supervisor.ControlSocket(cfg.Control, cfg.State)
	list := []supervisor.Door{{
		Name: "control", Addr: socket, Conf: fmt.Sprintf("%+v", cfg.Control),
		Listen: func() (net.Listener, error) { return supervisor.ListenControl(socket, cfg.Control.Group) },
		Serve: func(_ context.Context, raw net.Listener) (*http.Server, net.Listener, error) {
			return supervisor.ControlServer(engine, log), raw, nil
		},
	}}
	w := cfg.Web
	if w.Listen == "" {
		return list, nil
	}
	page, listen, err := pageConfig(cfg, log)
	if err != nil {
		return list, fmt.Errorf("no web page: %w", err)
	}
	page.Settings = settings{file}
	if w.Metrics == "" {
		page.Metrics = registry
	} else {
		list = append(list, supervisor.Door{
			Name: "metrics", Addr: w.Metrics, Conf: fmt.Sprint(w.Hosts),
			Listen: func() (net.Listener, error) { return listenTCP("web.metrics", w.Metrics) },
			Serve: func(_ context.Context, raw net.Listener) (*http.Server, net.Listener, error) {
				mux := http.NewServeMux()
				mux.Handle("GET /metrics", registry)
				return web.NewServer(web.Secure(web.Security{Hosts: w.Hosts, Log: log}, mux), log), raw, nil
			},
		})
	}
	return append(list, supervisor.Door{
		Name: "page", Addr: w.Listen, Conf: fmt.Sprintf("%+v %v %s", w, page.Login != nil, cfg.Fetch.Builder),
		Listen: func() (net.Listener, error) { return listenTCP("web.listen", w.Listen) },
		Serve: func(ctx context.Context, raw net.Listener) (*http.Server, net.Listener, error) {
			listen.Listener = raw
			l, err := listen.Open(ctx)
			if err != nil {
				return nil, nil, err
			}
			log.Info("web page", "address", listen.Scheme()+"://"+l.Addr().String()+"/", "login", listen.Login)
			return web.NewServer(servicepage.New(page, engine), log), l, nil
		},
	}), nil
}
