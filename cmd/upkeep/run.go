package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/sources"
)

func runCommand() *cli.Command {
	var file, level string
	return &cli.Command{
		Name: "run", Args: "[-- service's arguments]", Short: "run a service and keep it up to date",
		Long: `The service gets upkeep's environment, signals (QUIT, USR1, USR2) and output.
upkeep ends with the service's exit status. INT and TERM stop the service and
then upkeep; a second one kills the service. HUP reads the configuration again and
reaches the service only as the key process.reload_signal says.`,
		Example: "upkeep run -config /srv/hello/upkeep.toml",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "config", defaultConfigFile, "configuration `file`")
			fs.StringVar(&level, "log", "info", "least `level` of messages: debug, info, warn or error")
		},
		Run: func(ctx context.Context, args []string) error { return run(ctx, file, level, args) },
	}
}

func run(ctx context.Context, file, level string, args []string) error {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return cli.Usagef("-log %s: it can be debug, info, warn or error", level)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: lv}))
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	// What is wrong with the configuration stops updates only, as long as it
	// says how to start the service.
	cfg, cfgErr := loadConfig(file)
	engineCfg := cfg.engine(file, args)
	if err := engineCfg.CheckStart(); err != nil {
		return errors.Join(cfgErr, err)
	}
	registry := metric.New()
	registry.Process()
	deps := supervisor.Deps{
		Output: process.NewOutput(os.Stdout, os.Stderr), Log: log, Metrics: registry, Kinds: sources.Kinds(),
		Rest: rest, Self: self(file), UpdatesErr: errors.Join(cfgErr, engineCfg.CheckUpdates()),
	}
	runner := process.NewOS(cfg.State, log)
	deps.Runner, deps.Commands = runner, runner.Command
	lazy := &lazySources{cfg: cfg, log: log, metrics: registry}
	deps.Versions, deps.Binaries = lazy, lazy
	deps.Reload = func() (supervisor.Config, error) {
		c, err := loadConfig(file)
		if err == nil {
			err = lazy.reload(c)
		}
		return c.engine(file, args), err
	}
	engine, err := supervisor.New(engineCfg, deps)
	if err != nil {
		return err
	}
	if deps.UpdatesErr != nil {
		log.Error("the configuration is wrong; the service runs, updates are off", "err", deps.UpdatesErr)
	}

	outliveReaders()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append(slices.Clone(passedSignals), stopSignals...)...)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go handleSignals(signals, cancel, engine, log)

	bg, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	// After the service's start: its start must not wait for them.
	wg.Go(func() {
		if !engine.WaitStarted(bg) {
			return
		}
		serve(bg, &wg, cfg, file, engine, registry, log)
		debug.FreeOSMemory() // what the start needed isn't needed again
	})
	status, err := engine.Run(ctx)
	if err != nil {
		return err
	}
	if status != 0 {
		return &cli.ExitError{Code: status}
	}
	return nil
}

// serve starts the control socket and the web page. What goes wrong with them
// is said and doesn't touch the service.
func serve(ctx context.Context, wg *sync.WaitGroup, cfg Config, file string, engine *supervisor.Engine, registry *metric.Registry, log *slog.Logger) {
	socket := supervisor.ControlSocket(cfg.Control, cfg.State)
	if l, err := supervisor.ListenControl(socket, cfg.Control.Group); err != nil {
		log.Error("no control socket; status and update commands don't work", "err", err)
	} else {
		wg.Go(func() {
			if err := supervisor.ServeControl(ctx, l, engine, log); err != nil {
				log.Error("control socket", "err", err)
			}
		})
	}
	if cfg.Web.Listen == "" {
		return
	}
	if err := servePage(ctx, wg, cfg, file, engine, registry, log); err != nil {
		log.Error("no web page", "err", err)
	}
}

// handleSignals stops on the first of the stop signals, kills on the second,
// and passes everything else on.
func handleSignals(c <-chan os.Signal, cancel func(), engine *supervisor.Engine, log *slog.Logger) {
	stopping := false
	for sig := range c {
		switch {
		case sig == reloadSignal:
			if err := engine.Reload(context.Background()); err != nil {
				log.Error(err.Error())
			}
			engine.ForwardReload()
		case !slices.Contains(stopSignals, sig):
			engine.Forward(sig)
		case stopping:
			engine.Kill()
		default:
			stopping = true
			cancel()
		}
	}
}

// self describes this program.
func self(file string) supervisor.SelfStatus {
	s := supervisor.SelfStatus{Config: file, GoVersion: runtime.Version()}
	if bi, ok := debug.ReadBuildInfo(); ok {
		s.Module, s.Version = bi.Main.Path, bi.Main.Version
	}
	return s
}
