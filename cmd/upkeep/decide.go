package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/sources"
)

// decisionCommands change what a running upkeep does by itself.
func decisionCommands() []*cli.Command {
	return []*cli.Command{
		decision("hold", supervisor.VerbHold, "", "stay with the running version until unhold", "",
			"upkeep hold -reason 'holidays'"),
		decision("unhold", supervisor.VerbUnhold, "", "end a hold", "", "upkeep unhold"),
		decision("skip", supervisor.VerbSkip, "[VERSION]", "never install a version by itself (default the next one)",
			"A newer version is installed all the same. With -go only that Go version and older ones are skipped.",
			"upkeep skip -reason 'breaks uploads' v1.4.2"),
		decision("unskip", supervisor.VerbUnskip, "VERSION", "take a version off the skip list", "", "upkeep unskip v1.4.2"),
		decision("pin", supervisor.VerbPin, "[VERSION]", "install this version (default the running one) and nothing else",
			"Without -go the Go version in use is kept.", "upkeep pin v1.4.1"),
		decision("unpin", supervisor.VerbUnpin, "", "end a pin", "", "upkeep unpin"),
		decision("pause", supervisor.VerbPause, "", "install nothing by itself until resume", "", "upkeep pause -reason 'moving house'"),
		decision("resume", supervisor.VerbResume, "", "end a pause", "", "upkeep resume"),
		decision("cancel", supervisor.VerbCancel, "", "give up an update that has not yet stopped the old version, or one noted for a time",
			"With -self an update of upkeep, under way or scheduled; it is not begun again by itself for updates.interval.", "upkeep cancel"),
		decision("reload", supervisor.VerbReload, "", "have the configuration read again", "", "upkeep reload -config /srv/hello/upkeep.toml"),
	}
}

func decision(name, verb, args, short, long, example string) *cli.Command {
	var f controlFlags
	a := supervisor.Action{Verb: verb}
	return &cli.Command{
		Name: name, Args: args, Short: short, Long: long, Example: example,
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.StringVar(&a.Reason, "reason", "", "`why`, for status and history")
			if verb == supervisor.VerbCancel {
				fs.BoolVar(&a.Self, "self", false, "an update of upkeep itself instead of the service's")
			}
			if strings.Contains(args, "VERSION") {
				fs.StringVar(&a.GoVersion, "go", "", "Go `version`")
			}
		},
		Run: func(ctx context.Context, argv []string) error {
			switch {
			case len(argv) > 1 || len(argv) == 1 && args == "":
				return cli.Usagef("%s takes %s", name, orNothing(args))
			case len(argv) == 0 && args == "VERSION":
				return cli.Usagef("%s needs a VERSION", name)
			case len(argv) == 1:
				a.Version = argv[0]
			}
			c, err := f.act(ctx, a)
			if err != nil {
				return err
			}
			return f.tell(ctx, c)
		},
	}
}

func orNothing(args string) string {
	if args == "" {
		return "no arguments"
	}
	return "one argument"
}

func rollbackCommand() *cli.Command {
	var f controlFlags
	a := supervisor.Action{Verb: supervisor.VerbRollback}
	var wait bool
	return &cli.Command{
		Name: "rollback", Args: "[VERSION]", Short: "go back to a kept binary, without a download",
		Long:    "The version that is left goes on the skip list. 'upkeep status -v' lists the kept binaries.",
		Example: "upkeep rollback -wait\nupkeep rollback v1.4.1",
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.StringVar(&a.GoVersion, "go", "", "Go `version` of the binary, when there are several")
			fs.BoolVar(&a.Self, "self", false, "of upkeep itself instead of the service")
			fs.StringVar(&a.Reason, "reason", "", "`why`, for the history")
			fs.BoolVar(&wait, "wait", false, "wait for the end and show the steps")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) > 1 {
				return cli.Usagef("rollback takes one version")
			}
			if len(args) == 1 {
				a.Version = args[0]
			}
			return start(ctx, &f, a, wait)
		},
	}
}

func planCommand() *cli.Command {
	var f controlFlags
	var ask bool
	return &cli.Command{
		Name: "plan", Short: "say what is going to be installed when, and why not sooner",
		Long: `Nothing is done. When upkeep does not run, the answer comes from the state on disk,
and with -ask from the index.`,
		Example: "upkeep plan -config /srv/hello/upkeep.toml",
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.BoolVar(&ask, "ask", false, "ask for new versions first")
		},
		Run: func(ctx context.Context, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			s, err := c.Status(ctx)
			switch {
			case errors.Is(err, supervisor.ErrNotRunning) && f.socket == "":
				s, err = preview(ctx, f.file, ask)
			case err == nil && ask:
				if err = askNow(ctx, c); err == nil {
					s, err = c.Status(ctx)
				}
			}
			if err != nil {
				return notRunning(err)
			}
			if f.json {
				return printJSON(s.Plan)
			}
			return printPlan(os.Stdout, s)
		},
	}
}

// preview is the status of an upkeep that does not run.
func preview(ctx context.Context, file string, ask bool) (supervisor.Status, error) {
	c, err := loadConfig(file)
	if err != nil {
		return supervisor.Status{}, err
	}
	log := slog.New(slog.DiscardHandler)
	deps := supervisor.Deps{Log: log, Self: self(file, c.Self.Path, false), Kinds: sources.Kinds()}
	if ask {
		deps.Versions = &lazySources{cfg: c, log: log, metrics: metric.New()}
	}
	return supervisor.Preview(ctx, c.engine(file, nil), deps, ask)
}

// askNow has new versions asked for and waits for the answer.
func askNow(ctx context.Context, c *supervisor.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	before := s.Knowledge.Asked
	if err := c.Do(ctx, supervisor.Action{Verb: supervisor.VerbCheck}); err != nil {
		return err
	}
	return c.Follow(ctx, func(s supervisor.Status) bool { return !s.Knowledge.Asked.After(before) })
}

func printPlan(w io.Writer, s supervisor.Status) error {
	switch c := s.Plan.Candidate; {
	case c == nil:
		fmt.Fprintf(w, "Nothing is going to be installed: %s.\n", s.Plan.Reason)
	case s.Plan.Automatic:
		fmt.Fprintf(w, "%s (%s) is going to be installed %s: %s.\n", c.Pair, c.Kind, when(s.Now, c.When), c.Why)
		if c.Wait != "" {
			fmt.Fprintf(w, "Not sooner: %s.\n", c.Wait)
		}
	default:
		fmt.Fprintf(w, "%s (%s) could be installed with 'upkeep update'. Not by itself: %s.\n", c.Pair, c.Kind, s.Plan.Reason)
	}
	if !s.Knowledge.Fresh.IsZero() {
		fmt.Fprintf(w, "Learned %s from %s (%s).\n", ago(s.Now, s.Knowledge.Fresh), s.Knowledge.Source, s.Knowledge.Proof)
	}
	if s.Knowledge.Error != "" {
		fmt.Fprintf(w, "The last try failed: %s\n", s.Knowledge.Error)
	}
	if len(s.Plan.Versions) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "VERSION\tGO\tKIND\tDISCOVERED\tVERDICT")
	for _, v := range s.Plan.Versions {
		found := "unknown"
		if !v.Discovered.IsZero() {
			found = v.Discovered.Local().Format("2006-01-02 15:04")
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", v.Version, v.GoVersion, v.Kind, found, v.Reason)
	}
	return tw.Flush()
}

func when(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "never, since its windows don't open"
	case !t.After(now):
		return "now"
	}
	return "at " + t.Local().Format("2006-01-02 15:04:05 MST")
}

func historyCommand() *cli.Command {
	var f controlFlags
	return &cli.Command{
		Name: "history", Short: "list updates and decisions, newest first",
		Example: "upkeep history -json",
		Flags:   f.add,
		Run: func(ctx context.Context, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			s, err := c.Status(ctx)
			if err != nil {
				return notRunning(err)
			}
			if f.json {
				return printJSON(s.History)
			}
			tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "ENDED\tWHAT\tRESULT\tFROM\tTO\tBY\tLOG\tREASON")
			for _, r := range s.History {
				record := ""
				if r.Builder != "" {
					record = fmt.Sprint(r.LogIndex)
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Ended.Local().Format("2006-01-02 15:04:05"), r.Kind, r.Result,
					pairText(r.From), pairText(r.To), r.By, record, r.Reason)
			}
			return tw.Flush()
		},
	}
}

func pairText(p supervisor.Pair) string {
	if p.Version == "" {
		return "-"
	}
	return strings.TrimSpace(p.Version + " " + p.GoVersion)
}

func logsCommand() *cli.Command {
	var f controlFlags
	var n int
	return &cli.Command{
		Name: "logs", Short: "print the service's last lines of output",
		Example: "upkeep logs -n 20",
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.IntVar(&n, "n", 200, "how many `lines`, at most 200")
		},
		Run: func(ctx context.Context, args []string) error {
			if n < 1 {
				return cli.Usagef("-n %d: it is a number of lines from 1 on", n)
			}
			c, err := f.client()
			if err != nil {
				return err
			}
			if _, err := c.Status(ctx); err != nil {
				return notRunning(err)
			}
			lines := c.Logs(n)
			if f.json {
				return printJSON(append([]string{}, lines...)) // [] when there are none
			}
			for _, line := range lines {
				fmt.Println(line)
			}
			return nil
		},
	}
}
