package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor"
)

func statusCommand() *cli.Command {
	var f controlFlags
	var verbose bool
	return &cli.Command{
		Name: "status", Short: "say in one line what runs and what comes next",
		Long: `The exit status serves a monitoring check: 0 up to date, 1 an update is pending or
under way, 2 failing or not running.`,
		Example: "upkeep status -config /srv/hello/upkeep.toml",
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.BoolVar(&verbose, "v", false, "say more than one line")
		},
		Run: func(ctx context.Context, args []string) error {
			c, err := f.client()
			if err != nil {
				return &cli.ExitError{Code: 2, Err: err}
			}
			s, err := c.Status(ctx)
			if err != nil {
				return &cli.ExitError{Code: 2, Err: notRunning(err)}
			}
			switch {
			case f.json:
				err = printJSON(s)
			case verbose:
				printStatus(os.Stdout, s)
			default:
				fmt.Println(statusLine(s))
			}
			if err == nil && s.ExitCode() != 0 {
				err = &cli.ExitError{Code: s.ExitCode()}
			}
			return err
		},
	}
}

// statusLine fits a terminal's line when versions and reasons are not overlong.
func statusLine(s supervisor.Status) string {
	line := s.Service.Name
	if s.Service.Version != "" { // that of a foreign binary is not known
		line += fmt.Sprintf(" %s (%s)", s.Service.Version, s.Service.GoVersion)
	}
	line += ": " + s.Summary
	const width = 200 // longer reasons are cut; -v has them whole
	if r := []rune(line); len(r) > width {
		line = string(r[:width-1]) + "…"
	}
	return line
}

func printStatus(w io.Writer, s supervisor.Status) {
	fmt.Fprintln(w, statusLine(s))
	sv := s.Service
	if sv.Running {
		fmt.Fprintf(w, "service     process %d, started %s\n", sv.Pid, ago(s.Now, sv.Started))
	} else {
		fmt.Fprintln(w, "service     does not run")
	}
	if sv.Warning != "" {
		fmt.Fprintf(w, "            %s\n", sv.Warning)
	}
	fmt.Fprintf(w, "binary      %s %s\n", sv.Binary, sv.Sum)
	switch {
	case sv.Health.Configured && sv.Health.Checked.IsZero():
		fmt.Fprintln(w, "health      is checked after the next update")
	case sv.Health.Configured:
		fmt.Fprintf(w, "health      %s (%s)\n", sv.Health.Detail, ago(s.Now, sv.Health.Checked))
	}
	fmt.Fprintf(w, "handover    %s: %s\n", sv.Handover.Mode, sv.Handover.Reason)
	for _, text := range sv.Handover.Warnings {
		fmt.Fprintf(w, "            %s\n", text)
	}
	if s.Knowledge.Fresh.IsZero() {
		fmt.Fprintln(w, "knowledge   none yet")
	} else {
		fmt.Fprintf(w, "knowledge   %s from %s, %s\n", ago(s.Now, s.Knowledge.Fresh), s.Knowledge.Source, s.Knowledge.Proof)
	}
	if s.Knowledge.Error != "" {
		fmt.Fprintf(w, "            %s\n", s.Knowledge.Error)
	}
	if !s.Knowledge.StaleSince.IsZero() {
		fmt.Fprintf(w, "            stale: the first answer that was not fresh came %s\n", ago(s.Now, s.Knowledge.StaleSince))
	}
	if u := s.Update; u != nil {
		fmt.Fprintf(w, "update      to %s: %s %s\n", u.To, u.Step, u.Detail)
	}
	if r := s.LastResult; r != nil {
		fmt.Fprintf(w, "last        %s of %s, %s %s\n", r.Result, r.To, ago(s.Now, r.Ended), r.Reason)
	}
	if sc := s.Scheduled; sc != nil {
		fmt.Fprintf(w, "scheduled   %s at %s, by %s\n", sc.Pair, sc.At.Local().Format("Mon 2 Jan 15:04"), sc.By)
	}
	for _, k := range s.Kept {
		if !k.Running {
			fmt.Fprintf(w, "kept        %s, %s\n", k.Pair, k.File)
		}
	}
	fmt.Fprintf(w, "upkeep      %s (%s), process %d%s\n", s.Self.Version, s.Self.GoVersion, s.Self.Pid, selfWords(s.Self))
	for i, e := range s.Events {
		if i == 5 {
			break
		}
		fmt.Fprintf(w, "event       %s, %d times, last %s: %s\n", e.Kind, e.Count, ago(s.Now, e.Time), e.Text)
	}
}

// selfWords say what becomes of upkeep itself.
func selfWords(s supervisor.SelfStatus) string {
	switch {
	case s.Off != "":
		return "; it does not update itself: " + s.Off
	case s.Update != nil:
		return fmt.Sprintf("; updating itself to %s: %s", s.Update.To, s.Update.Step)
	case s.Error != "":
		return "; its own versions can't be learned: " + s.Error
	case s.Plan != nil && s.Plan.Candidate != nil:
		c := s.Plan.Candidate
		if s.Plan.Automatic && !c.When.IsZero() {
			return fmt.Sprintf("; %s comes on %s", c.Pair, c.When.Local().Format("Mon 2 Jan at 15:04"))
		}
		return fmt.Sprintf("; %s is there, not installed by itself: %s", c.Pair, s.Plan.Reason)
	}
	return ""
}
