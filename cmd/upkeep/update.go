package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor"
)

func updateCommand() *cli.Command {
	var f controlFlags
	var a supervisor.Action
	var wait bool
	var at string
	return &cli.Command{
		Name: "update", Short: "install the newest version now, or the one named",
		Long: `The running upkeep does it: build, verification, restart and probation. When it knows
of nothing to install it first asks for new versions. This command returns when it has
begun, or with -wait at the end: with 0 when the new version stays, else with 1.`,
		Example: "upkeep update -wait\nupkeep update -version v1.4.2 -go go1.26.8",
		Flags: func(fs *flag.FlagSet) {
			f.add(fs)
			fs.StringVar(&a.Version, "version", "", "`version` to install (default the newest allowed)")
			fs.StringVar(&a.GoVersion, "go", "", "Go `version` to build it with (default as the policy says)")
			fs.StringVar(&a.Reason, "reason", "", "`why`, for the history")
			fs.BoolVar(&a.Self, "self", false, "upkeep itself instead of the service")
			fs.StringVar(&at, "at", "", "not now but at this `time`, like 2026-12-24T03:00:00+01:00 or 03:00 (the next time it is that late)")
			fs.BoolVar(&wait, "wait", false, "wait for the end and show the steps")
		},
		Run: func(ctx context.Context, args []string) error {
			a.Verb = supervisor.VerbUpdate
			if at != "" {
				var err error
				if a.At, err = parseAt(at, time.Now()); err != nil || a.Self || wait {
					return cli.Usagef("-at %s: %w", at, orErr(err, "it goes neither with -self nor with -wait"))
				}
				a.Verb = supervisor.VerbSchedule
				c, err := f.act(ctx, a)
				switch {
				case err != nil:
					return err
				case f.json:
					return f.tell(ctx, c)
				}
				fmt.Printf("It goes at %s; 'upkeep cancel' takes that back.\n", a.At.Format("Mon 2 Jan 15:04 MST"))
				return nil
			}
			why := ""
			if a.Version == "" && !a.Self {
				why = askFirst(ctx, &f)
			}
			err := start(ctx, &f, a, wait)
			if refused := new(supervisor.RefusedError); why != "" && errors.As(err, &refused) {
				err = cli.Hint(err, "New versions were asked for, and that failed: %s", why)
			}
			return err
		},
	}
}

func orErr(err error, text string) error {
	if err == nil {
		err = errors.New(text)
	}
	return err
}

// parseAt reads a time, or a time of the day that is to come.
func parseAt(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return t, errors.New("it is neither like 2026-12-24T03:00:00+01:00 nor like 03:00")
	}
	at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
	if !at.After(now) {
		at = time.Date(now.Year(), now.Month(), now.Day()+1, t.Hour(), t.Minute(), 0, 0, now.Location())
	}
	return at, nil
}

// start asks for an update or a roll-back and waits for its end if wanted.
func start(ctx context.Context, f *controlFlags, a supervisor.Action, wait bool) error {
	c, err := f.act(ctx, a)
	if err != nil {
		return err
	}
	switch {
	case !wait && f.json:
		return f.tell(ctx, c)
	case !wait:
		fmt.Println("Started; see 'upkeep status'.")
		return nil
	}
	var r *supervisor.Result
	if a.Self {
		r, err = followSelf(ctx, c)
	} else {
		r, err = follow(ctx, c)
	}
	if err != nil {
		return err
	}
	text, err := ending(r, a.Self)
	if f.json {
		return errors.Join(printJSON(r), err)
	}
	if err == nil {
		fmt.Println(text)
	}
	return err
}

// ending says how an update ended, as an error when the new version does not run.
func ending(r *supervisor.Result, self bool) (string, error) {
	took := r.Ended.Sub(r.Started).Seconds()
	switch {
	case self && r.Result == supervisor.ResultInstalled:
		return fmt.Sprintf("upkeep %s runs, after %.1f s; the service noticed nothing.", r.To, took), nil
	case self:
		return "", fmt.Errorf("upkeep %s did not take over: %s", r.To, r.Reason)
	case r.Result == supervisor.ResultInstalled:
		return fmt.Sprintf("%s runs, after %.1f s; the service was down for %d ms.", r.To, took, r.Downtime.Milliseconds()), nil
	case r.Result == supervisor.ResultRolledBack:
		return "", fmt.Errorf("%s was rolled back to %s: %s", r.To, r.From, r.Reason)
	}
	return "", fmt.Errorf("the update to %s %s: %s", r.To, r.Words(), r.Reason)
}

// silence is how long upkeep may leave questions without an answer while it
// updates itself: the version before may have to notice that first, and then to
// take over, or to be started.
const silence = time.Minute

// followSelf shows an update of upkeep itself until its end, which the version
// that answers then tells.
func followSelf(ctx context.Context, c *supervisor.Client) (*supervisor.Result, error) {
	var id string
	lines, heard := 0, time.Now()
	for {
		s, err := c.Status(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			heard = time.Now()
		}
		if u := s.Self.Update; err != nil {
			if time.Since(heard) > silence {
				return nil, fmt.Errorf("upkeep does not answer any more: %w", err)
			}
		} else if u != nil {
			if id == "" {
				id = u.ID
			}
			for ; lines < len(u.Log); lines++ {
				fmt.Fprintln(os.Stderr, u.Log[lines])
			}
		} else if r := s.Self.LastResult; r != nil && (r.ID == id || id == "") {
			return r, nil
		} else {
			return nil, errors.New("the update is no longer under way and left no result")
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// follow shows an update's steps until its end.
func follow(ctx context.Context, c *supervisor.Client) (*supervisor.Result, error) {
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
	if err == nil && result == nil {
		err = errors.New("the update is no longer under way and left no result")
	}
	return result, err
}
