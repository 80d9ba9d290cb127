package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

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

// standTime bounds the start of the program that stands by.
const standTime = 10 * time.Second

// StandBy starts this program once more. Its output is ours and so is its
// process group, in which the next version looks for no orphans of the service.
func (s OSSuccessor) StandBy(ctx context.Context, dir string, b *handoff.Bundle) (stop func(), err error) {
	fail := func(err error) (func(), error) {
		return nil, fmt.Errorf("this version can't stand by while the new one proves itself: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	var ends []*os.File // of two pipes
	defer func() {
		for _, f := range ends {
			f.Close()
		}
	}()
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		ends = append(ends, r, w)
	}
	theirs, ours := map[string]*os.File{leaveKey: ends[0], verdictKey: ends[3]}, map[string]*os.File{leaveKey: ends[1], verdictKey: ends[2]}
	for name, f := range theirs {
		if err := b.Add(name, f); err != nil {
			return fail(err)
		}
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env, cmd.Stdout, cmd.Stderr = os.Environ(), os.Stdout, os.Stderr
	done, err := b.Give(dir, cmd)
	if err == nil {
		err = cmd.Start()
		done()
	}
	for name := range theirs {
		b.Take(name).Close()
	}
	if err != nil {
		return fail(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	_ = ends[3].Close() // so that its end is seen
	_ = ends[2].SetReadDeadline(time.Now().Add(standTime))
	unbound := context.AfterFunc(ctx, func() { ends[2].SetReadDeadline(time.Now()) })
	said := hear(ends[2])
	unbound()
	if said != sayStanding {
		stop()
		return fail(errors.Join(ctx.Err(), errors.New("it did not begin")))
	}
	for name, f := range ours {
		if err := b.Add(name, f); err != nil {
			stop()
			return fail(err)
		}
	}
	return stop, errors.Join(b.Put(standbyKey, standbyOrder{}), b.Put(standbyPidKey, cmd.Process.Pid))
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
