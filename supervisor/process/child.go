package process

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/internal/httpget"
)

// A Child is a program beside the service that is started by us and waited for.
type Child struct {
	cmd  *exec.Cmd
	out  *limited
	done chan struct{}
	once sync.Once
}

// StartChild starts a command in a process group of its own and keeps the
// beginning of what it says.
func (r *OS) StartChild(cmd *exec.Cmd) (*Child, error) {
	c := &Child{cmd: cmd, out: &limited{max: maxCommandOutput}, done: make(chan struct{})}
	cmd.SysProcAttr = sysProcAttr(nil)
	cmd.Stdout, cmd.Stderr = c.out, c.out
	cmd.WaitDelay = time.Second
	waited, err := r.guard(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	if err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // ProcessState tells
		killGroup(cmd.Process.Pid)
		waited()
		close(c.done)
	}()
	return c, nil
}

// Done is closed when the process has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// How tells how it ended, with the last thing that it said.
func (c *Child) How() string {
	text := "ended"
	if st := c.cmd.ProcessState; st != nil {
		text = "ended: " + st.String()
	}
	lines := strings.Split(strings.TrimSpace(c.out.String()), "\n")
	if last := httpget.Line(lines[len(lines)-1], 300); last != "" {
		text += fmt.Sprintf(" (%s)", last)
	}
	return text
}

// Kill ends it, with its process group, and waits for that.
func (c *Child) Kill() {
	c.once.Do(func() {
		select {
		case <-c.done:
			return
		default:
		}
		killGroup(c.cmd.Process.Pid)
		_ = c.cmd.Process.Kill()
		select {
		case <-c.done:
		case <-time.After(killTime):
		}
	})
}

// OpenFile returns a name that leads to an open file, whatever happens to its
// own name, for the exec of this very process; base becomes its short name.
func (r *OS) OpenFile(f *os.File, base string) string {
	return r.executable(Spec{File: f.Name(), Name: base, Open: f}, f.Fd())
}
