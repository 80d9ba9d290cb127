package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/process"
)

// OSSuccessor starts real programs, with the arguments of this one.
type OSSuccessor struct{ Runner *process.OS }

var _ Successor = OSSuccessor{}

// aliveKey is the read end of a pipe that only the running version can write
// to: its end tells a version on trial that it is alone.
const aliveKey = "alive"

// Try starts a version beside this one.
func (s OSSuccessor) Try(ctx context.Context, dir, file string, b *handoff.Bundle) (Tried, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("trying %s: %w", file, err)
	}
	defer r.Close()
	if err := b.Add(aliveKey, r); err != nil {
		w.Close()
		return nil, err
	}
	cmd := exec.Command(file, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	// What systemd says is for its main process, which this isn't.
	cmd.Env = serviceEnv(os.Environ(), false)
	child, err := func() (*process.Child, error) {
		done, err := b.Give(dir, cmd)
		if err != nil {
			return nil, err
		}
		defer done()
		return s.Runner.StartChild(cmd)
	}()
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("trying %s: %w", file, err)
	}
	return &tried{child, w}, nil
}

type tried struct {
	*process.Child
	alive *os.File
}

func (t *tried) Stop() {
	t.alive.Close()
	t.Kill()
}

// Alone returns a function that waits until the version that tries this one is
// gone, or ctx ends.
func Alone(b *handoff.Bundle) (wait func(ctx context.Context)) {
	f := b.Take(aliveKey)
	return func(ctx context.Context) {
		if f == nil {
			return
		}
		defer f.Close()
		stop := context.AfterFunc(ctx, func() { f.Close() })
		defer stop()
		_, _ = io.Copy(io.Discard, f)
	}
}

// Replace starts a version in the place of this one.
func (s OSSuccessor) Replace(dir string, open *os.File, file string, b *handoff.Bundle) error {
	name := file
	if open != nil {
		name = s.Runner.OpenFile(open, filepath.Base(os.Args[0]))
	}
	err := b.Exec(dir, name, os.Args, os.Environ())
	if name != file && (errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)) {
		err = b.Exec(dir, file, os.Args, os.Environ()) // there is no /proc
	}
	return err
}
