package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/term"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/supervisor/install"
)

func initCommand() *cli.Command {
	var f sourceFlags
	var dir, progName, goVersion, listen, health, runAs string
	var stripped, force, noPin, firstUse bool
	return &cli.Command{
		Name:  "init",
		Args:  "MODULE[/CMD][@VERSION] [-- SERVICE ARGUMENTS]",
		Short: "set up a service: verified binary, configuration, systemd unit",
		Long: `Downloads the binary as "upkeep get" does, into a folder of its own, and writes a
configuration (upkeep.toml, with the module proxy and checksum database that were
found) and a hardened systemd unit beside it. Nothing is installed or started: the
commands for that are printed.

Without -anchor the zone's own keys are pinned as they are now. Where the chain from
the root zone proves them nobody is asked. Keys that nothing proves, as those of a
private zone, are shown, and kept if you say yes: that is trust on first use.`,
		Example: `upkeep init -key build.example.org+1f2e3d4c+AZ… -zone l.example.org github.com/mjl-/mox -- serve
upkeep init -dir /srv/hello -user hello -health http://127.0.0.1:8080/ -config base.toml example.org/hello@v1.0.0`,
		Flags: func(fs *flag.FlagSet) {
			f.discovery(fs)
			f.building(fs)
			fs.StringVar(&dir, "dir", "", "`folder` to set up (default one named after the command, in the current folder)")
			fs.StringVar(&progName, "name", "", "`name` of the service and its binary (default the command's)")
			fs.StringVar(&goVersion, "go", "", "Go `version` to build with, like go1.26.3 (default the newest)")
			fs.BoolVar(&stripped, "stripped", false, "without symbol table and debug information")
			fs.StringVar(&listen, "listen", "", "`address` of upkeep's web page, like 127.0.0.1:8300 (default none)")
			fs.StringVar(&health, "health", "", "`URL` that tells whether the service is well (default none)")
			fs.StringVar(&runAs, "user", "", "`user` that the unit runs as (default the current one)")
			fs.BoolVar(&noPin, "no-pin", false, "don't pin the zone's keys: follow the chain from the root zone each time")
			fs.BoolVar(&firstUse, "first-use", false, "pin the zone's keys even if nothing proves them")
			fs.BoolVar(&force, "force", false, "replace a configuration and unit that are there")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("name one MODULE[/CMD][@VERSION]")
			}
			serviceArgs := args[1:]
			if len(serviceArgs) > 0 && serviceArgs[0] == "--" {
				serviceArgs = serviceArgs[1:]
			}
			cfg, err := f.config()
			if err != nil {
				return err
			}
			if strings.ContainsAny(progName, "/\\ \t\n%") || strings.HasPrefix(progName, ".") || strings.HasPrefix(progName, "-") {
				return cli.Usagef("%q cannot be the name of a service", progName)
			}
			// The folder's name can depend on the module, which is known only
			// when the logs' state has a place; so that is made first.
			name := progName
			if name == "" {
				name = commandName(args[0])
			}
			if dir == "" {
				dir = name
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			s := setup{dir: dir, name: name, args: serviceArgs, user: runAs}
			if err := s.free(force); err != nil {
				return err
			}
			cfg.State = filepath.Join(dir, "upkeep-state")
			cfg.Fetch.Dir = filepath.Join(cfg.State, "fetch")
			cfg.Service.Path = s.link()
			cfg.Web.Listen = or(listen, cfg.Web.Listen)
			cfg.Health.URL = or(health, cfg.Health.URL)
			cfg.Service.Args = nil
			if err := checkSettings(cfg, s.config()); err != nil {
				return fmt.Errorf("what is to be written is wrong: %w", err) // before anything is built
			}
			made := false
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				made = true
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if !noPin {
				p := pinner{firstUse, os.Stdin, os.Stderr, term.IsTerminal(int(os.Stdin.Fd()))}
				cfg.Discovery, err = p.pin(ctx, cfg.Discovery, dir)
			}
			if err != nil {
				if made {
					os.RemoveAll(dir)
				}
				return err
			}
			sp, err := s.make(ctx, cfg, args[0], goVersion, stripped)
			if err != nil {
				// A set-up that failed leaves nothing behind, except what proves a log's misbehaviour.
				if made && !hasEvidence(cfg.State) {
					os.RemoveAll(dir)
				}
				return err
			}
			s.print(sp)
			return nil
		},
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// commandName is the last element of a package path that is no major version.
func commandName(arg string) string {
	pkg, _, _ := strings.Cut(arg, "@")
	return spec.Spec{Module: strings.TrimSuffix(pkg, "/")}.Command()
}

// hasEvidence reports whether a log client kept tree heads that contradict each other.
func hasEvidence(state string) bool {
	found := false
	filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "evidence") || err == nil && strings.Contains(filepath.Base(path), "fork") {
			found = true
		}
		return nil
	})
	return found
}

// setup is what init writes.
type setup struct {
	dir, name string
	args      []string
	user      string
}

func (s setup) config() string { return filepath.Join(s.dir, defaultConfigFile) }
func (s setup) link() string   { return filepath.Join(s.dir, s.name) }

// free says which of the files is there already.
func (s setup) free(force bool) error {
	files := []string{s.link()}
	if !force {
		files = append(files, s.config(), filepath.Join(s.dir, templateName))
	}
	for _, file := range files {
		fi, err := os.Lstat(file)
		if err == nil && !(force && fi.Mode()&fs.ModeSymlink != 0) {
			return cli.Hint(fmt.Errorf("%s is there already", file), "Choose another folder with -dir, or replace configuration and unit with -force.")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// make finds out what is meant, and writes it.
func (s setup) make(ctx context.Context, cfg Config, arg, goVersion string, stripped bool) (spec.Spec, error) {
	fd, err := newFinder(ctx, cfg, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		return spec.Spec{}, err
	}
	defer fd.close()
	fd.goVersion, fd.stripped = goVersion, stripped
	sp, err := fd.find(ctx, arg)
	if err != nil {
		return sp, err
	}
	return sp, s.write(ctx, fd, sp)
}

// write obtains the binary and writes the files beside it.
func (s setup) write(ctx context.Context, fd *finder, sp spec.Spec) error {
	place := install.At(s.link())
	// The name that the engine gives to binaries, so that a later roll-back finds this one.
	file := s.name + "-" + sp.Version + "-" + sp.GoVersion
	if sp.Stripped {
		file += "-stripped"
	}
	file += sp.Exe()
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if _, err := fd.obtain(ctx, sp, place.File(file)); err != nil {
		return err
	}
	if err := durable.Symlink(file, s.link()); err != nil {
		return err
	}
	cfg := fd.cfg
	cfg.State = "upkeep-state"
	cfg.Service.Path, cfg.Service.Module, cfg.Service.Package = s.name, sp.Module, sp.Dir
	cfg.Service.Args, cfg.Service.Stripped = s.args, sp.Stripped
	cfg.Fetch.Builder = fd.fetch.Builder()
	if cfg.Discovery.Zone == "" && cfg.Discovery.Updates == "" {
		// No index is known: new versions are learned from the module proxy.
		cfg.Discovery.Fallback = true
	}
	if cfg.Discovery.Anchor != "" {
		data, err := os.ReadFile(cfg.Discovery.Anchor)
		if err != nil {
			return fmt.Errorf("copying the trust anchor: %w", err)
		}
		if err := durable.WriteFile(filepath.Join(s.dir, anchorName), data, 0o644); err != nil {
			return err
		}
		cfg.Discovery.Anchor = anchorName
	}
	cfg.Discovery = shareCache(cfg.Discovery, sharedCache)
	text, err := config.Default(cfg)
	if err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if strings.Contains(cfg.Fetch.Proxy, "@") {
		perm = 0o600 // a password for the proxy
	}
	head := fmt.Sprintf("# upkeep for %s, written by \"upkeep init\". Relative file names are relative to this file.\n\n", sp.Package())
	if err := durable.WriteFile(s.config(), append([]byte(head), text...), perm); err != nil {
		return err
	}
	if runtime.GOOS != "linux" {
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return s.unit(exe, systemdVersion()).write()
}

func (s setup) print(sp spec.Spec) {
	fmt.Printf("%s %s is set up in %s.\n\n", sp.Package(), sp.Version, s.dir)
	fmt.Printf("Run it now:\n  upkeep run -config %s\n", shellQuote(s.config()))
	if exe, err := os.Executable(); err == nil && runtime.GOOS == "linux" {
		s.unit(exe, 0).print()
	}
}

func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=:@,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
