package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"example.org/upkeep/internal/buildinfo"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/doctor"
	"example.org/upkeep/supervisor/fetch"
)

func doctorCommand() *cli.Command {
	var f sourceFlags
	var asJSON bool
	var unit string
	return &cli.Command{
		Name:  "doctor",
		Args:  "[MODULE]",
		Short: "walk the whole path that a service depends on, and explain what is broken",
		Long: `Looks at the clock, each source over each of its transports, the chain of keys
and the answer, the builder's TLS and log, the module proxy, the checksum database,
disk space, permissions and the unit file. It changes nothing.
Exit codes: 0 nothing is broken, 1 something is, 2 wrong use.`,
		Example: `upkeep doctor -config /srv/hello/upkeep.toml`,
		Flags: func(fs *flag.FlagSet) {
			f.discovery(fs)
			f.building(fs)
			fs.BoolVar(&asJSON, "json", false, "print JSON, one object a link")
			fs.StringVar(&unit, "unit", "", "unit `file` (default the one beside the binary or in /etc/systemd/system)")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) > 1 {
				return cli.Usagef("name at most one module")
			}
			code := 0
			report := func(fd doctor.Finding) {
				if fd.Level == doctor.Fail {
					code = 1
				}
				if asJSON {
					json.NewEncoder(os.Stdout).Encode(fd)
					return
				}
				fmt.Printf("%-4s  %s: %s\n", fd.Level, fd.Link, fd.What)
				if fd.Whose != "" {
					fmt.Printf("      likely at fault: %s\n", fd.Whose)
				}
				if fd.Next != "" {
					fmt.Printf("      next: %s\n", fd.Next)
				}
			}
			broken := func(link string, err error) {
				a := doctor.Explain(err)
				report(doctor.Finding{Link: link, Level: doctor.Fail, What: err.Error(), Whose: a.Whose, Next: a.Next})
			}
			cfg, err := f.config()
			if err != nil {
				return err
			}
			p := doctor.Patient{Module: cfg.Service.Module, Path: cfg.Service.Path, State: cfg.State, Cache: cfg.Discovery.Cache, User: cfg.Process.User, Unit: unit}
			if file := or(f.file, defaultConfigFile); cfg.Service.Path != "" {
				if p.Config, err = filepath.Abs(file); err != nil {
					return err
				}
			}
			if bi, err := buildinfo.ReadFile(cfg.Service.Path); err == nil {
				if p.Module == "" {
					p.Module = bi.Main.Path
				}
				if p.Module == bi.Main.Path {
					p.Version = bi.Main.Version
				}
			}
			if len(args) == 1 {
				p.Module = args[0]
			}
			if cfg.State == "" {
				// Without a configuration there is no state; the tree heads seen here go with the folder.
				dir, err := os.MkdirTemp("", "upkeep-doctor-*")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				cfg.Fetch.Dir = dir
			}
			if err := environment(ctx, &cfg.Fetch); err != nil {
				broken("module proxy", err)
			}
			if cfg.Fetch.Key != "" {
				if p.Fetch, err = fetch.New(cfg.Fetch, fetch.Options{}); err != nil {
					broken("builder", err)
				} else {
					defer p.Fetch.Close()
				}
				if p.HTTP, err = fetch.NewHTTP(cfg.Fetch.CA); err != nil {
					broken("builder TLS", err)
				}
			}
			if cfg.Discovery.Zone != "" || cfg.Discovery.Updates != "" {
				opt := discover.Options{ReadOnly: true}
				if cfg.State != "" {
					opt.Dir = filepath.Join(cfg.State, "discovery")
				}
				cfg.Discovery.Fallback = false
				if p.Discover, err = discover.New(cfg.Discovery, opt); err != nil {
					broken("discovery", err)
				} else {
					defer p.Discover.Close()
				}
			}
			doctor.Examine(ctx, p, report)
			if code != 0 {
				return &cli.ExitError{Code: code}
			}
			return nil
		},
	}
}
