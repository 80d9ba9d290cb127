package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/notify"
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
	outliveReaders()
	inherited, err := handoff.Receive()
	if err != nil {
		log.Error("what the version before handed over is lost", "err", err)
	}
	socket, trial := supervisor.OnTrial(inherited)
	var signals *handoff.Signals
	var standby *supervisor.Standby
	if !trial {
		signals = handoff.Catch(stopSignals, passedSignals)
		defer signals.Stop()
		if supervisor.StandsBy(inherited) {
			if supervises, err := supervisor.StandBy(inherited, signals, stopSignals, log); !supervises || err != nil {
				return err
			}
		}
		standby = supervisor.Arrived(inherited)
	}
	process.Expect(inherited)
	// What is wrong with the configuration stops updates only, as long as it
	// says how to start the service.
	cfg, cfgErr := loadConfig(file)
	engineCfg := cfg.engine(file, args)
	if err := engineCfg.CheckStart(); err != nil {
		if errors.Is(cfgErr, fs.ErrNotExist) {
			return cli.Hint(cfgErr, "Name the configuration with -config; 'upkeep init' writes one.")
		}
		return errors.Join(cfgErr, err)
	}

	tookOver := inherited != nil
	if !tookOver {
		inherited = supervisor.Relieve(cfg.State, log)
		process.Expect(inherited)
	}
	registry := metric.New()
	registry.Process()
	deps := supervisor.Deps{
		Output: process.NewOutput(os.Stdout, os.Stderr), Log: log, Metrics: registry, Kinds: sources.Kinds(),
		Rest: rest, Self: self(file, cfg.Self.Path, tookOver), UpdatesErr: errors.Join(cfgErr, engineCfg.CheckUpdates()), Inherited: inherited,
		Standby: standby, Signals: signals,
	}
	runner := process.NewOS(cfg.State, log)
	deps.Runner, deps.Commands, deps.Successor = runner, runner.Command, supervisor.OSSuccessor{Runner: runner}
	if trial {
		return onTrial(ctx, socket, cfg, engineCfg, deps)
	}
	up := forSystemd(&deps, log)
	bg, stop := context.WithCancel(context.Background())
	defer stop()
	listening := supervisor.NewDoors(bg, inherited, log)
	defer listening.Wait()
	deps.Handovers = []supervisor.Handover{listening}
	lazy := &lazySources{cfg: cfg, log: log, metrics: registry}
	deps.Versions, deps.Binaries = lazy, lazy
	var engine *supervisor.Engine
	deps.Reload = func() (supervisor.Config, func(bool) error, error) {
		c, err := loadConfig(file)
		if err != nil {
			return c.engine(file, args), nil, err
		}
		settle, err := lazy.prepare(c)
		if err != nil {
			return c.engine(file, args), nil, err
		}
		return c.engine(file, args), func(accepted bool) error {
			if accepted {
				list, err := doors(c, file, engine, registry, log)
				if err = errors.Join(err, listening.Set(list)); err != nil {
					settle(false)
					return err
				}
			}
			settle(accepted)
			return nil
		}, nil
	}
	deps.CheckConfig = func() error {
		c, err := loadConfig(file)
		e := c.engine(file, args)
		return errors.Join(err, e.CheckStart(), e.CheckUpdates())
	}
	engine, err = supervisor.New(engineCfg, deps)
	if err != nil {
		return err
	}
	if deps.UpdatesErr != nil {
		log.Error("the configuration is wrong; the service runs, updates are off", "err", deps.UpdatesErr)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handler := signalHandler{cancel: cancel, engine: engine, up: up, log: log}
	go signals.Each(bg, handler.handle)
	go engine.TellSystemd(bg, ctx, up)

	// After the service's start: its start must not wait for them.
	opened := make(chan struct{})
	defer func() { stop(); <-opened }()
	go func() {
		defer close(opened)
		if !engine.WaitStarted(bg) {
			return
		}
		// What goes wrong here is said and doesn't touch the service.
		list, err := doors(cfg, file, engine, registry, log)
		if err := errors.Join(err, listening.Set(list)); err != nil {
			log.Error("not everything is listened on", "err", err)
		}
		inherited.Close() // what nobody wanted
		engine.TookOver()
		debug.FreeOSMemory() // what the start needed isn't needed again
	}()
	status, err := engine.Run(ctx)
	if err != nil {
		return err
	}
	if status != 0 {
		return &cli.ExitError{Code: status}
	}
	return nil
}

// onTrial is run beside the running version, which decides by the answers
// whether this one is to take its place. Nothing of the service is touched.
func onTrial(ctx context.Context, socket string, cfg Config, engineCfg supervisor.Config, deps supervisor.Deps) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alone := supervisor.Alone(deps.Inherited)
	go func() {
		alone(ctx)
		cancel()
	}()
	engine, err := supervisor.New(engineCfg, deps)
	if err != nil {
		return err
	}
	if cfg.Web.Listen != "" {
		if _, _, err := pageConfig(cfg, deps.Log); err != nil {
			deps.Log.Error("no web page", "err", err)
		}
	}
	l, err := supervisor.ListenControl(socket, "")
	if err != nil {
		return err
	}
	go func() {
		if err := supervisor.ServeControl(ctx, l, engine, deps.Log); err != nil {
			deps.Log.Error("on trial", "err", err)
		}
	}()
	return engine.RunTrial(ctx)
}

// A signalHandler stops on the first of the stop signals, kills on the second,
// and passes everything else on.
type signalHandler struct {
	cancel   func()
	engine   *supervisor.Engine
	up       *notify.Upward
	log      *slog.Logger
	stopping bool
}

func (h *signalHandler) handle(sig os.Signal) {
	switch {
	case sig == reloadSignal:
		h.up.Reloading()
		if err := h.engine.Reload(context.Background()); err != nil {
			h.log.Error(err.Error())
		}
		h.engine.ForwardReload()
		h.up.Ready()
	case !slices.Contains(stopSignals, sig):
		h.engine.Forward(sig)
	case h.stopping:
		h.engine.Kill()
	default:
		h.stopping = true
		h.cancel()
	}
}

// self describes this program. It is updated under the name by which it was
// started, or that of the configuration. One that took over gets that name a
// little later.
func self(file, path string, tookOver bool) supervisor.SelfStatus {
	s := supervisor.SelfStatus{Config: file, GoVersion: runtime.Version()}
	if bi, ok := debug.ReadBuildInfo(); ok {
		s.Module, s.Version = bi.Main.Path, bi.Main.Version
		s.Package = strings.TrimPrefix(strings.TrimPrefix(bi.Path, bi.Main.Path), "/")
	}
	var err error
	if s.Binary, err = os.Executable(); err != nil {
		s.Off = err.Error()
		return s
	}
	if path == "" {
		if path, err = exec.LookPath(os.Args[0]); err == nil {
			path, err = filepath.Abs(path)
		}
	}
	if err != nil {
		s.Off = fmt.Sprintf("it is not known by which name upkeep was started (%v); set self.path", err)
		return s
	}
	s.Path = path
	if !tookOver && !sameFile(path, s.Binary) {
		s.Off = fmt.Sprintf("%s is not the upkeep that runs (%s); restart it", path, s.Binary)
	}
	return s
}

func sameFile(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}
