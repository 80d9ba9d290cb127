package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor"
)

func updateCommand() *cli.Command {
	var f controlFlags
	var a supervisor.Action
	var wait bool
	return &cli.Command{
		Name: "update", Short: "install the newest version now, or the one named",
		Long: `The running upkeep does it: build, verification, restart and probation. This command
returns at once, or with -wait at the end: with 0 when the new version stays, else with 1.`,
		Example: "upkeep update -wait\nupkeep update -version v1.4.2 -go go1.26.8",
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.StringVar(&a.Version, "version", "", "`version` to install (default the newest allowed)")
			fs.StringVar(&a.GoVersion, "go", "", "Go `version` to build it with (default as the policy says)")
			fs.StringVar(&a.Reason, "reason", "", "`why`, for the history")
			fs.BoolVar(&wait, "wait", false, "wait for the end and show the steps")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("update takes no arguments; name a version with -version")
			}
			a.Verb = supervisor.VerbUpdate
			return start(ctx, &f, a, wait)
		},
	}
}

// start asks for an update or a roll-back and waits for its end if wanted.
func start(ctx context.Context, f *controlFlags, a supervisor.Action, wait bool) error {
	c, err := f.act(ctx, a)
	if err != nil {
		return err
	}
	if !wait {
		fmt.Println("Started; see 'upkeep status'.")
		return nil
	}
	return follow(ctx, c)
}

// follow shows an update's steps until its end.
func follow(ctx context.Context, c *supervisor.Client) error {
	var id string
	var result *supervisor.Result
	lines := 0
	err := c.Follow(ctx, func(s supervisor.Status) bool {
		if u := s.Update; u != nil && (id == "" || id == u.ID) {
			id = u.ID
			for ; lines < len(u.Log); lines++ {
				fmt.Fprintln(os.Stderr, u.Log[lines])
			}
			return true
		}
		if r := s.LastResult; r != nil && (r.ID == id || id == "") {
			result = r
			return false
		}
		return id != "" // an update that was over before it was seen has a result
	})
	if err != nil {
		return err
	}
	if result == nil {
		return errors.New("the update is no longer under way and left no result")
	}
	took := result.Ended.Sub(result.Started)
	switch result.Result {
	case supervisor.ResultInstalled:
		fmt.Printf("%s runs, after %.1f s; the service was down for %d ms.\n", result.To, took.Seconds(), result.Downtime.Milliseconds())
		return nil
	case supervisor.ResultRolledBack:
		return fmt.Errorf("%s was rolled back to %s: %s", result.To, result.From, result.Reason)
	}
	return fmt.Errorf("the update to %s was %s: %s", result.To, result.Result, result.Reason)
}
