package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"example.org/upkeep/internal/cli"
)

func getCommand() *cli.Command {
	var f sourceFlags
	var out, goos, goarch, goVersion string
	var stripped, quiet bool
	return &cli.Command{
		Name:  "get",
		Args:  "MODULE[/CMD][@VERSION]",
		Short: "download a verified binary to a file",
		Long: `Without a version the newest one is taken: as the zone says when one is
configured, else as the module proxy lists it. Either way the version must be in
the checksum database. The file appears only when everything about it verified:
the builder's signed and consistent log, the record in it, and the size, sum and
build information of the binary.`,
		Example: `upkeep get -key build.example.org+1f2e3d4c+AZ… -zone l.example.org -o mox github.com/mjl-/mox`,
		Flags: func(fs *flag.FlagSet) {
			f.discovery(fs)
			f.building(fs)
			fs.StringVar(&out, "o", "", "`file` to write (default the command's name in the current folder)")
			fs.StringVar(&goos, "os", "", "target operating `system` (default this machine's)")
			fs.StringVar(&goarch, "arch", "", "target `architecture` (default this machine's)")
			fs.StringVar(&goVersion, "go", "", "Go `version` to build with, like go1.26.3 (default the newest)")
			fs.BoolVar(&stripped, "stripped", false, "without symbol table and debug information")
			fs.BoolVar(&quiet, "q", false, "print errors only")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("name one MODULE[/CMD][@VERSION]")
			}
			if out != "" {
				if err := canBeWritten(out); err != nil {
					return err // before anything is built
				}
			}
			cfg, err := f.config()
			if err != nil {
				return err
			}
			if cfg.State == "" {
				if cfg.State, err = userState(); err != nil {
					return err
				}
				cfg.Fetch.Dir = filepath.Join(cfg.State, "fetch")
			}
			fd, err := newFinder(ctx, cfg, func(format string, args ...any) {
				if !quiet {
					fmt.Fprintf(os.Stderr, format+"\n", args...)
				}
			})
			if err != nil {
				return err
			}
			defer fd.close()
			fd.goVersion, fd.stripped = goVersion, stripped
			if quiet {
				fd.out = io.Discard
			}
			if goos != "" {
				fd.goos = goos
			}
			if goarch != "" {
				fd.goarch = goarch
			}
			s, err := fd.find(ctx, args[0])
			if err != nil {
				return err
			}
			file := out
			if file == "" {
				file = s.Command() + s.Exe()
			}
			if err := canBeWritten(file); err != nil {
				return err
			}
			if _, err := fd.obtain(ctx, s, file); err != nil {
				return err
			}
			fmt.Println(file)
			return nil
		},
	}
}

// canBeWritten refuses what is no place for a file.
func canBeWritten(file string) error {
	if fi, err := os.Stat(file); err == nil && !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is there and is not a regular file; name another one with -o", file)
	}
	if fi, err := os.Stat(filepath.Dir(file)); err != nil {
		return cli.Hint(fmt.Errorf("the file to write, %s: %w", file, err), "Make the folder, or name another file with -o.")
	} else if !fi.IsDir() {
		return fmt.Errorf("the file to write, %s: %s is not a folder; name another one with -o", file, filepath.Dir(file))
	}
	return nil
}
