package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A program is one of the demo's processes. When it ends by itself it is
// started again with the same command line, so that killing it shows what the
// others make of that.
type program struct {
	name string
	path string
	args []string
	env  []string
	log  string // file with its output

	mu      sync.Mutex
	cmd     *exec.Cmd
	stopped bool
	done    chan struct{} // closed when it has ended for good
}

// stack is the running programs, in the order in which they were started.
type stack struct {
	dir   string
	say   func(format string, args ...any)
	fails chan error // a program that can't stay up
	progs []*program
}

// start starts a program and keeps it running until stop.
func (s *stack) start(ctx context.Context, p *program) error {
	p.log = filepath.Join(s.dir, "log", p.name+".log")
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return err
	}
	p.done = make(chan struct{})
	if err := p.spawn(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	s.progs = append(s.progs, p)
	go s.keep(ctx, p)
	return nil
}

func (s *stack) keep(ctx context.Context, p *program) {
	defer close(p.done)
	for quick := 0; ; {
		began := time.Now()
		err := p.cmd.Wait()
		p.mu.Lock()
		if p.stopped || ctx.Err() != nil {
			p.mu.Unlock()
			return
		}
		if quick++; time.Since(began) > 5*time.Second {
			quick = 0
		}
		if quick > 5 {
			p.mu.Unlock()
			s.fails <- fmt.Errorf("%s ends again and again (%s); its last output, from %s:\n%s", p.name, ending(err), p.log, tail(p.log, 2000))
			return
		}
		err2 := p.spawnLocked()
		p.mu.Unlock()
		if err2 != nil {
			s.fails <- fmt.Errorf("starting %s again: %w", p.name, err2)
			return
		}
		s.say("%s ended (%s) and was started again", p.name, ending(err))
	}
}

func ending(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (p *program) spawn() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spawnLocked()
}

func (p *program) spawnLocked() error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	return nil
}

func (p *program) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

func (p *program) signal(sig os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(sig)
}

// kill ends the process as the kernel's out-of-memory killer would.
func (p *program) kill() error { return p.signal(os.Kill) }

// stop ends all programs, the last one started first.
func (s *stack) stop() {
	for i := len(s.progs) - 1; i >= 0; i-- {
		p := s.progs[i]
		p.mu.Lock()
		p.stopped = true
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			_ = p.cmd.Process.Kill() // Windows has no SIGTERM
		}
		p.mu.Unlock()
		select {
		case <-p.done:
		case <-time.After(15 * time.Second):
			s.say("%s does not end; killing it", p.name)
			_ = p.kill()
			<-p.done
		}
	}
}

// tail returns the last n bytes of a file.
func tail(file string, n int64) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > n {
		_, _ = f.Seek(-n, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, n))
	return string(data)
}
