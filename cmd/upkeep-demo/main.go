// Upkeep-demo runs the whole of upkeep on one machine's loopback interface: a
// module proxy and checksum database, upkeep-dns, upkeep-build, and upkeep
// with a service, each as the program that a user would run.
//
// It trusts the source tree that it is run from and the go command. Its files
// are in one folder, temporary unless -dir names it: bin/ the programs, log/
// their output, and a folder for each of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"example.org/upkeep/internal/cli"
)

const usage = `Usage: go run ./cmd/upkeep-demo [flags]

Runs upkeep-dns, upkeep-build and upkeep on this machine, with a module proxy
and a checksum database of their own that publish a sample service, and prints
what to try. Ctrl-C ends everything and removes the temporary folder.

Flags:
  -check           go through all steps unattended, three attacks included, and
                   exit with 0 only when each one held
  -module SPEC     instead of the sample: a real program, MODULE[/CMD]@VERSION,
                   from the module proxy and checksum database of this machine
                   (GOPROXY, GOSUMDB, or what 'go env' says). It has to take its
                   address from the environment variables HOST and PORT, or from
                   its arguments
  -service-args S  arguments of the real program, separated by spaces;
                   {host}, {port} and {addr} are filled in
  -dir FOLDER      work in this folder and keep it; it has to be new or empty

Example:
  go run ./cmd/upkeep-demo
  go run ./cmd/upkeep-demo -check
  go run ./cmd/upkeep-demo -check -module github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin@v2.25.0
`

func main() {
	if len(os.Args) > 1 && os.Args[1] == "ecosystem" {
		p := &cli.Program{Name: "upkeep-demo", Commands: []*cli.Command{ecosystemCommand()}}
		p.Main()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "upkeep-demo: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	check       bool
	module      string
	serviceArgs string
	dir         string
}

func run(ctx context.Context, args []string) (err error) {
	var o options
	flags := flag.NewFlagSet("upkeep-demo", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
	flags.BoolVar(&o.check, "check", false, "")
	flags.StringVar(&o.module, "module", "", "")
	flags.StringVar(&o.serviceArgs, "service-args", "", "")
	flags.StringVar(&o.dir, "dir", "", "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		os.Exit(2)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -h", flags.Arg(0))
	}
	if o.module != "" {
		if _, _, err := splitModule(o.module); err != nil {
			return err // before anything is built
		}
	}
	dir, keep, err := folder(o.dir)
	if err != nil {
		return err
	}
	r := &reporter{w: os.Stdout, terminal: term.IsTerminal(int(os.Stdout.Fd()))}
	d := &demo{options: o, dir: dir, r: r}
	d.stack = &stack{dir: dir, say: r.say, fails: make(chan error, 8)}
	defer func() {
		d.close()
		if keep {
			fmt.Printf("\nEverything that was written is in %s\n", dir)
		} else {
			err = errors.Join(err, removeAll(dir))
		}
	}()

	// A program that can't stay up ends the demo, wherever it is.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		select {
		case err := <-d.stack.fails:
			failed <- err
			cancel()
		case <-inner.Done():
		}
	}()
	if o.check {
		err = d.check(inner)
	} else {
		err = d.interactive(inner, os.Stdin)
	}
	select {
	case err := <-failed:
		return err
	default:
	}
	if ctx.Err() != nil && o.check {
		return errors.New("interrupted")
	}
	if ctx.Err() != nil {
		return nil // Ctrl-C is how it ends
	}
	return err
}

// folder returns the folder to work in, and whether it stays.
func folder(dir string) (string, bool, error) {
	if dir == "" {
		tmp, err := os.MkdirTemp("", "upkeep-demo-")
		if err == nil {
			err = os.Chmod(tmp, 0o755) // builds run as another user when the builder is root
		}
		return tmp, false, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", false, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if len(entries) > 0 {
		return "", false, fmt.Errorf("the folder of -dir, %s, is not empty", dir)
	}
	return dir, true, os.MkdirAll(dir, 0o755)
}

// removeAll removes a folder in which module caches and toolchains are read-only.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
