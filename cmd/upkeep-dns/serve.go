package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/web"
	"example.org/upkeep/web/indexpage"
)

func serveCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name:  "serve",
		Short: "answer queries and keep the index up to date",
		Long: `Prints the addresses it answers on, one a line, then logs to standard error.
It answers from the stored index at once, also while the log can't be reached.
SIGHUP makes it read its configuration and keys again; mistakes in them change
nothing. SIGTERM ends it.`,
		Example: `upkeep-dns serve -config /etc/upkeep-dns.toml
upkeep-dns serve -zone l.upkeep.test -keys keys -state state -ns ns0=127.0.0.1 -listen 127.0.0.1:0 -watch github.com/mjl-/mox`,
		Flags: func(fs *flag.FlagSet) { f.register(fs, true) },
		Run: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("serve takes no arguments")
			}
			return serve(ctx, &f, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}

// gcPercent trades a little CPU time on the way of new answers, none for those
// from the cache, for memory.
const gcPercent = 40

func serve(ctx context.Context, f *configFlags, log *slog.Logger) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before anybody can know that we run
	defer signal.Stop(hup)
	c, err := f.load(needAll)
	if err != nil {
		return err
	}
	db, err := c.Log.fill(ctx)
	if err != nil {
		return err
	}
	keys, err := loadKeys(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.State, 0o755); err != nil {
		return fmt.Errorf("making the folder of the index: %w", err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	store, err := index.Open(c.indexFile(), index.Options{Kind: c.kind(), SeenTime: c.Log.SeenTime, Logger: log, Metrics: reg})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	h, err := dnsserver.NewHandler(c.Zone, keys, store, dnsserver.Options{Logger: log, Answers: c.Limits.Answers, Rate: c.Limits.Rate})
	if err != nil {
		return err
	}
	reg.MustRegister(h.Metrics())
	if err := useCookies(h, c); err != nil {
		return err
	}
	h.LogQueries(c.Queries)
	srv := dnsserver.NewServer(h, dnsserver.ListenConfig{Idle: c.Limits.Idle.D(), Conns: c.Limits.Conns, ConnsPerIP: c.Limits.ConnsPerIP})
	defer srv.Close()
	var first string
	for _, addr := range c.Listen {
		bound, err := listen(srv, addr)
		if err != nil {
			return err
		}
		for _, a := range bound {
			fmt.Printf("dns: %s\n", a)
			if first == "" {
				first = a.String()
			}
		}
	}

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if c.HTTP != "" {
		if err := serveHTTP(ctx, &wg, c, first, db, store, reg, log); err != nil {
			return err
		}
	}
	if err := serveEncrypted(ctx, &wg, c.TLS, srv, log); err != nil {
		return err
	}
	wg.Go(func() { h.Run(ctx) })
	wg.Go(func() { reloads(ctx, hup, f, h, log) })
	return feed(ctx, c, db, store, reg, log)
}

func listen(srv *dnsserver.Server, addr string) ([]netip.AddrPort, error) {
	if addr == "systemd" {
		return srv.ListenInherited()
	}
	got, err := srv.Listen(addr)
	if err != nil {
		return nil, listenError(err, "-listen")
	}
	return []netip.AddrPort{got}, nil
}

// listenError adds the flag that chooses another port.
func listenError(err error, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(err, "Choose another port with %s, or end the other program.", flag)
	}
	return err
}

// serveHTTP serves metrics and the page of the index.
func serveHTTP(ctx context.Context, wg *sync.WaitGroup, c Config, dnsAddr string, db goproxy.SumDB, idx index.Reader, reg *prometheus.Registry, log *slog.Logger) error {
	listen := c.Page.Listen(c.HTTP, c.Hosts, c.State, log)
	l, err := listen.OpenPublic(ctx)
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		return fmt.Errorf("the page of the index: %w", err)
	}
	if err != nil {
		return listenError(&dnsserver.ListenError{Network: "TCP", Addr: c.HTTP, Err: err}, "-http")
	}
	security := web.Security{Hosts: c.Hosts, HTTPS: listen.TLS(), Log: log}
	mux := http.NewServeMux()
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	if c.Metrics == "" {
		mux.Handle("GET /metrics", web.Secure(security, metrics))
	} else if err := web.ServeMetrics(ctx, c.Metrics, web.Security{Hosts: c.Hosts, Log: log}, metrics, log); err != nil {
		return err
	}
	page := indexpage.Config{Security: security, Zone: c.Zone.Zone, LogName: db.Name, Log: log}
	if ap, err := netip.ParseAddrPort(dnsAddr); err == nil && !ap.Addr().IsUnspecified() {
		page.Server = dnsAddr
	}
	facts := &health{zone: c.Zone, keys: func() ([]*dnsserver.Key, error) { return loadKeys(c) }, index: idx, port: 53, log: log}
	if ap, err := netip.ParseAddrPort(dnsAddr); err == nil {
		facts.port = ap.Port() // a zone on another port is there on all its servers
	}
	page.Health = facts.Facts
	mux.Handle("/", indexpage.New(page, idx))
	fmt.Printf("http: %s://%s/\n", listen.Scheme(), l.Addr())
	serveMux(ctx, wg, &http.Server{Handler: mux}, l, log)
	return nil
}

// reloads takes configuration and keys again at each SIGHUP.
func reloads(ctx context.Context, hup <-chan os.Signal, f *configFlags, h *dnsserver.Handler, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		if err := reload(f, h); err != nil {
			log.Error("reading the configuration again: nothing was changed", "err", err)
			continue
		}
		log.Info("configuration and keys were read again; addresses, limits, state and log stay as they were at the start")
	}
}

func reload(f *configFlags, h *dnsserver.Handler) error {
	c, err := f.load(needAll)
	if err != nil {
		return err
	}
	keys, err := loadKeys(c)
	if err != nil {
		return err
	}
	if err := useCookies(h, c); err != nil {
		return err
	}
	h.LogQueries(c.Queries)
	return h.Reload(c.Zone, keys)
}

func useCookies(h *dnsserver.Handler, c Config) error {
	if c.Limits.Cookies == "" {
		return nil
	}
	secrets, err := cookieSecrets(c.Limits.Cookies)
	if err == nil {
		h.SetCookieSecrets(secrets)
	}
	return err
}

// stateDir is where the client of the log keeps its tree head.
func (c *Config) stateDir(db goproxy.SumDB) string { return filepath.Join(c.State, "log", db.Name) }
