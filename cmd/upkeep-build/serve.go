package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/metric/prom"
	"example.org/upkeep/tlog"
	"example.org/upkeep/web"
	"example.org/upkeep/web/buildpage"
)

func serveCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name: "serve", Short: "build on request and serve results and log",
		Example: "upkeep-build serve -config /etc/upkeep-build.toml",
		Flags:   f.register,
		Run: func(ctx context.Context, args []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			return serve(ctx, c)
		},
	}
}

func serve(ctx context.Context, c Config) (err error) {
	if !signal.Ignored(syscall.SIGHUP) { // the terminal was closed: no reason to leave builds behind
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	key, err := c.readKey()
	if err != nil {
		return err
	}
	db, err := c.Modules.fill(ctx)
	if err != nil {
		return err
	}
	sb, err := openSandbox(c)
	if err != nil {
		return err
	}
	listen := c.TLS.Listen(c.Listen, c.Hosts, c.State, logger)
	ln, err := listen.OpenPublic(ctx)
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(fmt.Errorf("another program listens on %s: %w", c.Listen, err), "Choose another address with -listen or the key listen.")
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer ln.Close()

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	src, err := openSource(ctx, c, db, reg, logger)
	if err != nil {
		return err
	}
	pages := buildpage.New(buildpage.Config{Security: web.Security{Hosts: c.Hosts, HTTPS: listen.TLS(), Log: logger}, Metrics: c.Metrics == "", Log: logger})
	svc, err := builder.New(builder.Options{Config: c.Build, Dir: c.State, SignerKey: key, Sandbox: sb, Source: src,
		GOPROXY: onlyProxies(c.Modules.Proxy), GOSUMDB: c.Modules.Database, Pages: pages, Logger: logger, Metrics: reg})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()

	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	secure := pages.Handler(svc)
	// Programs that read the log or the metrics need no protection of browsers.
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/metrics" && r.Method == http.MethodGet && c.Metrics == "":
			metrics.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/tlog/"):
			svc.ServeHTTP(w, r)
		default:
			secure.ServeHTTP(w, r)
		}
	})
	if c.Metrics != "" {
		if err := web.ServeMetrics(ctx, c.Metrics, web.Security{Hosts: c.Hosts, Log: logger}, metrics, logger); err != nil {
			return err
		}
	}
	srv := web.NewServer(h, logger)
	st := svc.Status(ctx)
	logger.Info("upkeep-build listens", "url", listen.Scheme()+"://"+ln.Addr().String()+"/", "key", st.VerifierKey, "records", st.LogSize)
	if missing := sb.Missing(); len(missing) > 0 {
		logger.Warn("builds are not fully confined", "missing", strings.Join(missing, ", "))
	}
	debug.FreeOSMemory() // reading a large log leaves some behind
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case err := <-served:
			logger.Error("serving", "err", err)
			served <- err
			stop()
		case <-runCtx.Done():
		}
	}()
	if err := svc.Run(runCtx); err != nil {
		return err
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	default:
	}
	logger.Info("stopping")
	down, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if srv.Shutdown(down) != nil {
		return srv.Close()
	}
	return nil
}

// openSource returns the module proxy with its checksum database. A key that
// the database does not sign with ends the start; a database that can't be
// reached now does not.
func openSource(ctx context.Context, c Config, db goproxy.SumDB, reg prometheus.Registerer, logger *slog.Logger) (*source.Source, error) {
	hc := &http.Client{Timeout: 15 * time.Minute, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute}}
	proxy, err := goproxy.New(c.Modules.Proxy, hc)
	if err != nil {
		return nil, fmt.Errorf("modules.proxy: %w", err)
	}
	if !strings.Contains(c.Modules.Database, " ") {
		url, err := proxy.SumDBURL(ctx, db)
		if err != nil {
			logger.Warn("the module proxy can't be asked for the checksum database; asking that directly", "err", err)
		} else {
			db.URL = url
		}
	}
	client, err := tlog.NewClient(tlog.ClientConfig{Key: db.Key, URL: db.URL, Dir: filepath.Join(c.State, "sumdb"), HTTP: hc, Logger: logger, Metrics: prom.Bridge(reg)})
	if err != nil {
		return nil, fmt.Errorf("the checksum database: %w", err)
	}
	_, err = client.Update(ctx)
	var fork *tlog.ForkError
	switch {
	case err == nil, errors.Is(err, tlog.ErrStale):
	case errors.Is(err, tlog.ErrSignature), errors.As(err, &fork), errors.Is(err, tlog.ErrInconsistent):
		return nil, cli.Hint(fmt.Errorf("the checksum database at %s: %w", db.URL, err), "Nothing was downloaded. Check modules.database, the flag -database or GOSUMDB.")
	default:
		logger.Warn("the checksum database can't be asked now", "err", err)
	}
	return &source.Source{Proxy: proxy, DB: client}, nil
}

// onlyProxies returns a GOPROXY list without fetching from version control.
func onlyProxies(list string) string {
	var b strings.Builder
	for rest := list; rest != ""; {
		elem, sep := rest, ""
		if i := strings.IndexAny(rest, ",|"); i >= 0 {
			elem, sep, rest = rest[:i], rest[i:i+1], rest[i+1:]
		} else {
			rest = ""
		}
		if e := strings.TrimSpace(elem); e == "direct" || e == "off" {
			break
		}
		b.WriteString(elem + sep)
	}
	return strings.TrimRight(b.String(), ",|")
}

func openSandbox(c Config) (sandbox.Sandbox, error) {
	sb, err := sandbox.New(sandbox.Config{None: c.Sandbox.None, Without: c.Sandbox.Without, User: c.Sandbox.User})
	var missing *sandbox.MissingError
	if errors.As(err, &missing) {
		flag := "-without " + missing.Mechanism
		if missing.Mechanism == sandbox.Bubblewrap {
			flag = "-no-sandbox"
		}
		return nil, cli.Hint(err, "Or accept the loss with %s, which every result page will say.", flag)
	}
	return sb, err
}

func sandboxCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name: "sandbox", Short: "say whether builds can be confined on this machine",
		Long:    "A program of attacks runs in the sandbox; exit status 1 says that one succeeded, or what is missing.",
		Example: "upkeep-build sandbox -config /etc/upkeep-build.toml",
		Flags:   f.register,
		Run: func(ctx context.Context, args []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			sb, err := openSandbox(c)
			if err != nil {
				return err
			}
			if !c.Sandbox.None {
				// A folder like the state folder, if that is there.
				dir := c.State
				if _, err := os.Stat(dir); err != nil {
					if dir, err = os.MkdirTemp("", "upkeep-build-"); err != nil {
						return err
					}
					defer os.RemoveAll(dir)
					if err := os.Chmod(dir, 0o755); err != nil {
						return err
					}
				}
				if err := sb.Probe(ctx, dir); err != nil {
					return err
				}
			}
			if missing := sb.Missing(); len(missing) > 0 {
				fmt.Printf("Builds are confined without %s.\n", strings.Join(missing, ", "))
				return nil
			}
			fmt.Println("Builds are fully confined.")
			return nil
		},
	}
}
