package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/tlog/index"
)

func lookupCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name:    "lookup",
		Args:    "MODULE...",
		Short:   "print what the index holds of modules",
		Long:    `The word "toolchain" stands for the releases of Go.`,
		Example: "upkeep-dns lookup -config /etc/upkeep-dns.toml github.com/mjl-/mox toolchain",
		Flags:   func(fs *flag.FlagSet) { f.register(fs, false) },
		Run: func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("lookup needs a module path")
			}
			c, err := f.load(needZone)
			if err != nil {
				return err
			}
			store, err := openIndex(c)
			if err != nil {
				return err
			}
			defer store.Close()
			return lookup(store, c.Zone.Zone, args)
		},
	}
}

func lookup(idx index.Reader, zone string, paths []string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	defer w.Flush()
	row := func(kind, version string, at, record int64) {
		fmt.Fprintf(w, "\t%s\t%s\t%s\trecord %d\n", kind, version, time.Unix(at, 0).UTC().Format(time.RFC3339), record)
	}
	missing := 0
	for _, path := range paths {
		if path == "toolchain" {
			list, err := idx.Toolchains()
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s\n", name.Toolchain(zone))
			for _, t := range list {
				row(t.Kind, t.Version, t.Time, t.Record)
			}
			continue
		}
		m, ok, err := idx.Module(path)
		if err != nil {
			return err
		}
		if !ok {
			fmt.Fprintf(w, "%s\tis not in the index\n", path)
			missing++
			continue
		}
		q, err := name.Module(path, zone)
		if errors.Is(err, name.ErrTooLong) {
			q = "(its name is too long for DNS)"
		} else if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n", q)
		for _, v := range m.Majors {
			row("major", v.Version, v.Time, v.Record)
		}
		for _, v := range m.Minors {
			row("minor", v.Version, v.Time, v.Record)
		}
		if v := m.Pre; v != nil {
			row("pre-release", v.Version, v.Time, v.Record)
		}
		if v := m.Pseudo; v != nil {
			row("untagged", v.Version, v.Time, v.Record)
		}
	}
	if missing > 0 {
		return &cli.ExitError{Code: 1}
	}
	return nil
}
