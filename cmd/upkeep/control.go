package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"time"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor"
)

// controlFlags lead to the control socket of a running upkeep.
type controlFlags struct {
	file   string
	socket string
	json   bool
}

func (f *controlFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&f.file, "config", defaultConfigFile, "configuration `file` of the running upkeep")
	fs.StringVar(&f.socket, "socket", "", "its control `socket` (default as the configuration says)")
	fs.BoolVar(&f.json, "json", false, "print JSON")
}

func (f *controlFlags) client() (*supervisor.Client, error) {
	if f.socket != "" {
		return supervisor.NewClient(f.socket), nil
	}
	if _, err := os.Stat(f.file); err != nil {
		return nil, cli.Hint(err, "Name the configuration of the running upkeep with -config, or its control socket with -socket.")
	}
	// A mistake elsewhere in the file doesn't matter for finding the socket.
	cfg, _ := loadConfig(f.file)
	return supervisor.NewClient(supervisor.ControlSocket(cfg.Control, cfg.State)), nil
}

// act sends an action.
func (f *controlFlags) act(ctx context.Context, a supervisor.Action) (*supervisor.Client, error) {
	c, err := f.client()
	if err != nil {
		return nil, err
	}
	if u, err := user.Current(); err == nil {
		a.By = u.Username
	}
	if err := c.Do(ctx, a); err != nil {
		return nil, notRunning(err)
	}
	return c, nil
}

// tell prints how things are after an order.
func (f *controlFlags) tell(ctx context.Context, c *supervisor.Client) error {
	s, err := c.Status(ctx)
	switch {
	case err != nil:
		return err
	case f.json:
		return printJSON(s)
	}
	fmt.Println(statusLine(s))
	return nil
}

func notRunning(err error) error {
	if errors.Is(err, supervisor.ErrNotRunning) {
		return cli.Hint(err, "Start it with 'upkeep run', or look with 'upkeep doctor' why it does not run.")
	}
	return err
}

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// ago says how long ago a time was.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	}
	return t.Local().Format("on 2006-01-02 at 15:04")
}
