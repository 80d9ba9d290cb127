package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Direct runs commands without confinement, for a server whose operator
// accepted that. Only the clean environment and the time limit remain.
type Direct struct{}

// Path returns the mount's source: everything is seen under its own name.
func (Direct) Path(m Mount) string { return m.Source }

// Missing names every mechanism.
func (Direct) Missing() []string { return []string{Bubblewrap, Cgroup, Landlock} }

// Own does nothing: commands run as the server's user.
func (Direct) Own(string) error { return nil }

// Tool returns "".
func (Direct) Tool() string { return "" }

// Probe does nothing: there is nothing that should hold.
func (Direct) Probe(context.Context, string) error { return nil }

// Run runs the command.
func (Direct) Run(ctx context.Context, job Job) error {
	// In the job's own folder, where a server that was killed finds it again.
	tmp, err := os.MkdirTemp(job.Dir, "tmp-")
	if err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	cmd := exec.Command(job.Args[0], job.Args[1:]...)
	cmd.Env = append([]string{"TMPDIR=" + tmp}, job.Env...)
	cmd.Dir = job.Dir
	if cmd.Dir == "" {
		cmd.Dir = tmp
	}
	endWithServer(cmd)
	return wait(ctx, cmd, job, nil)
}

// wait runs cmd within the job's time limit and explains how it ended.
func wait(ctx context.Context, cmd *exec.Cmd, job Job, started func() error) error {
	cmd.Stdout, cmd.Stderr = job.Output, job.Output
	cmd.WaitDelay = 5 * time.Second
	ownGroup(cmd)
	if job.Limits.Wall > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, job.Limits.Wall, ErrTimeout)
		defer cancel()
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	var startErr error
	if started != nil {
		if startErr = started(); startErr != nil {
			killGroup(cmd)
		}
	}
	stop := context.AfterFunc(ctx, func() { killGroup(cmd) })
	err := cmd.Wait()
	stop()
	killGroup(cmd) // what it left behind
	switch {
	case startErr != nil:
		return startErr
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitError(exit)
	}
	return err
}
