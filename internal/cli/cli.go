// Package cli is the frame of the programs' command lines: subcommands, one
// usage text for each, exit codes, and errors that end with what to do.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// A Command is one subcommand.
type Command struct {
	Name    string // "serve", or "config check"
	Args    string // what follows the flags, for example "MODULE"; without it nothing may follow
	Short   string // one line
	Long    string // paragraphs for -h, may be empty
	Example string // command lines, one a line
	Flags   func(*flag.FlagSet)
	Run     func(ctx context.Context, args []string) error
	Hidden  bool // for re-execution, not for people
}

// A Program is a set of commands.
type Program struct {
	Name     string
	Short    string
	Example  string
	Commands []*Command

	Stdout, Stderr io.Writer // set by tests
}

// ExitError ends the program with a code, printing Err unless it is nil.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Usagef is an error in the words of a command line: it ends the program with
// code 2 and points at -h.
func Usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// Hint adds what to do to an error; it is printed on a line of its own.
func Hint(err error, format string, args ...any) error {
	return &hintError{err, fmt.Sprintf(format, args...)}
}

type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// Main runs the program with the process's arguments and exits. The context
// of a command ends with SIGINT and SIGTERM; a second SIGINT kills the process.
func (p *Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(p.Run(ctx, os.Args[1:]))
}

// Run runs the program and returns its exit code.
func (p *Program) Run(ctx context.Context, args []string) int {
	if p.Stdout == nil {
		p.Stdout = os.Stdout
	}
	if p.Stderr == nil {
		p.Stderr = os.Stderr
	}
	if len(args) == 0 {
		p.usage(p.Stderr)
		return 2
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		if len(args) > 1 {
			cmd, _ := p.find(args[1:])
			if cmd == nil {
				return p.unknown(args[1:])
			}
			p.commandUsage(p.Stdout, cmd, p.flagSet(cmd))
			return 0
		}
		p.usage(p.Stdout)
		return 0
	case "version", "-version", "--version":
		fmt.Fprintln(p.Stdout, Version())
		return 0
	}
	cmd, rest := p.find(args)
	if cmd == nil {
		return p.unknown(args)
	}
	fs := p.flagSet(cmd)
	if err := fs.Parse(rest); errors.Is(err, flag.ErrHelp) {
		p.commandUsage(p.Stdout, cmd, fs)
		return 0
	} else if err != nil {
		fmt.Fprintf(p.Stderr, "%s %s: %v\nRun '%s %s -h' for its flags.\n", p.Name, cmd.Name, err, p.Name, cmd.Name)
		return 2
	}
	if late := lateFlag(rest, fs.Args()); late != "" {
		return p.report(cmd, Usagef("%s stands behind an argument; flags come first, and arguments that start with - come behind --", late))
	}
	if cmd.Args == "" && fs.NArg() > 0 && !cmd.Hidden {
		return p.report(cmd, Usagef("%s takes no arguments", cmd.Name))
	}
	return p.report(cmd, cmd.Run(ctx, fs.Args()))
}

// unknown says that there is no such command, or which of a group there are.
func (p *Program) unknown(args []string) int {
	group := p.group(args[0])
	if len(group) > 0 && len(args) > 1 && (args[1] == "-h" || args[1] == "-help" || args[1] == "--help") {
		for _, name := range group {
			cmd, _ := p.find([]string{args[0], name})
			fmt.Fprintf(p.Stdout, "%s %s: %s\n", p.Name, cmd.Name, cmd.Short)
		}
		return 0
	}
	msg := fmt.Sprintf("%s: there is no command %q", p.Name, args[0])
	if len(group) > 0 {
		msg = fmt.Sprintf("%s: %s needs one of: %s", p.Name, args[0], strings.Join(group, ", "))
	}
	fmt.Fprintf(p.Stderr, "%s\nRun '%s -h' for the commands.\n", msg, p.Name)
	return 2
}

// lateFlag returns what looks like a flag among the arguments that the flag
// package left, which ends at the first argument, unless it stands behind --.
func lateFlag(all, left []string) string {
	if n := len(all) - len(left); n > 0 && all[n-1] == "--" {
		return ""
	}
	for _, a := range left {
		if a == "--" {
			return ""
		}
		if len(a) > 1 && a[0] == '-' {
			return a
		}
	}
	return ""
}

func (p *Program) report(cmd *Command, err error) int {
	if err == nil {
		return 0
	}
	var exit *ExitError
	code := 1
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
	}
	fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
	var hint *hintError
	if errors.As(err, &hint) {
		fmt.Fprintf(p.Stderr, "%s\n", hint.hint)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(p.Stderr, "Run '%s %s -h' for its use.\n", p.Name, cmd.Name)
		return 2
	}
	return code
}

func (p *Program) find(args []string) (*Command, []string) {
	for _, cmd := range p.Commands {
		words := strings.Fields(cmd.Name)
		if len(args) < len(words) {
			continue
		}
		if strings.Join(args[:len(words)], " ") == cmd.Name {
			return cmd, args[len(words):]
		}
	}
	return nil, nil
}

func (p *Program) group(first string) []string {
	var names []string
	for _, cmd := range p.Commands {
		if rest, ok := strings.CutPrefix(cmd.Name, first+" "); ok {
			names = append(names, rest)
		}
	}
	return names
}

func (p *Program) flagSet(cmd *Command) *flag.FlagSet {
	fs := flag.NewFlagSet(cmd.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if cmd.Flags != nil {
		cmd.Flags(fs)
	}
	return fs
}

func (p *Program) usage(w io.Writer) {
	fmt.Fprintf(w, "%s\n\nUsage: %s COMMAND [flags] [arguments]\n\nCommands:\n", p.Short, p.Name)
	width := len("version")
	for _, cmd := range p.Commands {
		if !cmd.Hidden {
			width = max(width, len(cmd.Name))
		}
	}
	for _, cmd := range p.Commands {
		if !cmd.Hidden {
			fmt.Fprintf(w, "  %-*s  %s\n", width, cmd.Name, cmd.Short)
		}
	}
	fmt.Fprintf(w, "  %-*s  %s\n", width, "version", "print the version of this program")
	printExample(w, p.Example)
	fmt.Fprintf(w, "\nRun '%s COMMAND -h' for a command's flags.\n", p.Name)
}

func (p *Program) commandUsage(w io.Writer, cmd *Command, fs *flag.FlagSet) {
	line := p.Name + " " + cmd.Name
	flags := 0
	fs.VisitAll(func(*flag.Flag) { flags++ })
	if flags > 0 {
		line += " [flags]"
	}
	if cmd.Args != "" {
		line += " " + cmd.Args
	}
	fmt.Fprintf(w, "Usage: %s\n\n%s\n", line, sentence(cmd.Short))
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	if flags > 0 {
		fmt.Fprint(w, "\nFlags:\n")
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
	printExample(w, cmd.Example)
}

func printExample(w io.Writer, example string) {
	if example == "" {
		return
	}
	fmt.Fprint(w, "\nExample:\n")
	for line := range strings.Lines(strings.TrimSpace(example)) {
		fmt.Fprintf(w, "  %s\n", strings.TrimSpace(line))
	}
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// Version says which build this is: module version, Go version and target.
func Version() string {
	path, version := "upkeep", "unknown version"
	if bi, ok := debug.ReadBuildInfo(); ok {
		path, version = bi.Path, bi.Main.Version
	}
	return fmt.Sprintf("%s %s %s %s/%s", path, version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
