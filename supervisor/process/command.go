package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"example.org/upkeep/supervisor/notify"
)

// maxCommandOutput bounds what is kept of a command's output.
const maxCommandOutput = 16 << 10

// Command runs a command of the configuration, such as a hook, with additional
// environment, and returns its exit status and the beginning of its output.
// After the timeout it is killed with its process group.
func (r *OS) Command(ctx context.Context, argv, env []string, timeout time.Duration) (code int, output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(notify.Strip(os.Environ()), env...)
	cmd.SysProcAttr = sysProcAttr(nil)
	out := &limited{max: maxCommandOutput}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error {
		killGroup(cmd.Process.Pid)
		return cmd.Process.Kill()
	}
	// A child of the command that holds its output open isn't waited for.
	cmd.WaitDelay = time.Second
	waited, err := r.guard(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	late := func() error { return fmt.Errorf("running %s: it took longer than %v and was killed", argv[0], timeout) }
	if errors.Is(err, context.DeadlineExceeded) {
		return -1, "", late()
	}
	if err != nil {
		return -1, "", fmt.Errorf("running %s: %w", argv[0], err)
	}
	err = cmd.Wait()
	killGroup(cmd.Process.Pid)
	waited()
	if ctx.Err() == context.DeadlineExceeded {
		return -1, out.String(), late()
	}
	if err := ctx.Err(); err != nil {
		return -1, out.String(), err
	}
	if cmd.ProcessState == nil {
		return -1, out.String(), fmt.Errorf("running %s: %w", argv[0], err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), nil
}

type limited struct {
	mu  sync.Mutex
	b   bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := l.max - l.b.Len(); room > 0 {
		l.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
