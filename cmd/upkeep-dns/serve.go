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
	"slices"
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
			return serve(ctx, &f, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}

func serve(ctx context.Context, f *configFlags, log *slog.Logger) (err error) {
	tune, stop := context.WithCancel(ctx)
	defer stop()
	go dnsserver.TuneGC(tune)
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

	var idx dnsserver.Lister = store
	if c.Log.Mode == "watch" {
		idx = store.Only(c.Watch.Modules, c.Watch.Toolchain)
	}
	h, err := dnsserver.NewHandler(c.Zone, keys, idx, dnsserver.Options{Logger: log, Limits: c.Limits.handler()})
	if err != nil {
		return err
	}
	reg.MustRegister(h.Metrics())
	if c.Limits.Cookies != "" {
		secrets, err := cookieSecrets(c.Limits.Cookies)
		if err != nil {
			return err
		}
		h.SetCookieSecrets(secrets)
	}
	h.LogQueries(c.Queries)
	if text := c.flaps(); text != "" {
		log.Warn(text)
	}
	srv := dnsserver.NewServer(h, c.Limits.connections())
	defer srv.Close()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ls := &listeners{srv: srv, wg: &wg, log: log, open: map[place]func(){}}
	if err := ls.follow(ctx, &c); err != nil {
		return err
	}
	if c.HTTP != "" {
		if err := serveHTTP(ctx, &wg, c, ls.first, db, idx, reg, log); err != nil {
			return err
		}
	}
	wg.Go(func() { h.Run(ctx) })
	wg.Go(func() { (&reloader{f, h, ls, c}).run(ctx, hup, log) })
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

// A reloader takes configuration and keys again at each SIGHUP.
type reloader struct {
	flags   *configFlags
	handler *dnsserver.Handler
	ls      *listeners
	now     Config // what is in force
}

func (r *reloader) run(ctx context.Context, hup <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		if err := r.reload(ctx); err != nil {
			log.Error("reading the configuration again: nothing was changed", "err", err)
			continue
		}
		if text := r.now.flaps(); text != "" {
			log.Warn(text)
		}
		log.Info("configuration, keys and certificates were read again; the addresses of pages and metrics, state, log and watched modules stay as they were at the start")
	}
}

// reload checks everything before it changes anything. What can fail last is
// the handler's part, so the listeners are put back if it does.
func (r *reloader) reload(ctx context.Context) error {
	c, err := r.flags.load(needAll)
	if err != nil {
		return err
	}
	keys, err := loadKeys(c)
	if err != nil {
		return err
	}
	var secrets [][16]byte
	if c.Limits.Cookies != "" {
		if secrets, err = cookieSecrets(c.Limits.Cookies); err != nil {
			return err
		}
	}
	if slices.Contains(c.Listen, "systemd") != slices.Contains(r.now.Listen, "systemd") {
		return errInherited
	}
	if err := r.handler.CheckReload(c.Zone, keys); err != nil {
		return err
	}
	if err := r.ls.follow(ctx, &c); err != nil {
		return err
	}
	if err := r.handler.Reload(c.Zone, keys, c.Limits.handler()); err != nil {
		return errors.Join(err, r.ls.follow(ctx, &r.now))
	}
	if c.Limits.Cookies != "" || r.now.Limits.Cookies != "" {
		r.handler.SetCookieSecrets(secrets)
	}
	r.ls.srv.SetLimits(c.Limits.connections())
	r.handler.LogQueries(c.Queries)
	r.now = c
	return nil
}

// stateDir is where the client of the log keeps its tree head.
func (c *Config) stateDir(db goproxy.SumDB) string { return filepath.Join(c.State, "log", db.Name) }
