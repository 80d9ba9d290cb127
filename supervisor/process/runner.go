package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/upkeep/supervisor/cgroup"
)

// OS runs real processes.
type OS struct {
	dir string // state folder
	log *slog.Logger

	mark string
	last atomic.Int64 // process id that is recorded
}

// is reports whether a process is the recorded one.
func (r *OS) is(pid int) bool { return r.last.Load() == int64(pid) }

// ours are the children that somebody waits for. Being a subreaper is a fact
// of the whole process, and so is this. The lock is held while a child is
// started, so that none is taken for an orphan before it is known.
var ours = struct {
	sync.Mutex
	pids map[int]bool
}{pids: map[int]bool{}}

// NewOS returns a runner that keeps its record in the state folder. It makes
// this process the subreaper of what the service leaves behind.
func NewOS(stateDir string, log *slog.Logger) *OS {
	r := &OS{dir: stateDir, log: log, mark: rand.Text()}
	if err := becomeSubreaper(); err != nil {
		log.Warn("left-over children of the service can't be adopted", "err", err)
	}
	r.reap()
	return r
}

func (r *OS) recordFile() string { return filepath.Join(r.dir, "process") }

// markName is the environment variable by which a service is recognised after
// its supervisor was killed between starting it and recording its process id.
const markName = "UPKEEP_MARK"

// Start runs a process.
func (r *OS) Start(s Spec) (Process, error) {
	ours.Lock()
	defer ours.Unlock()
	// Recorded before the start too: a kill in between leaves the mark to look for.
	if err := r.write(record{Mark: r.mark}); err != nil {
		r.log.Error("the service's process can't be recorded; if upkeep is killed, the service has to be ended by hand", "err", err)
	}
	attr := &os.ProcAttr{
		Dir:   s.Dir,
		Env:   append(s.Env[:len(s.Env):len(s.Env)], markName+"="+r.mark),
		Files: []*os.File{nil, os.Stdout, os.Stderr},
		Sys:   sysProcAttr(s.Cred),
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("starting the service: %w", err)
	}
	defer null.Close()
	attr.Files[0] = null
	if s.Output != nil {
		stdout, stderr, err := s.Output.pipes()
		if err != nil {
			return nil, fmt.Errorf("starting the service: %w", err)
		}
		defer stdout.Close()
		defer stderr.Close()
		attr.Files[1], attr.Files[2] = stdout, stderr
	}
	p := &osProcess{runner: r, spec: s, done: make(chan struct{})}
	argv := append([]string{s.Name}, s.Args...)
	spec := s
	for try := 0; ; try++ {
		p.started = time.Now()
		p.proc, err = r.launch(spec, argv, attr)
		if spec.Open != nil && (errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)) {
			// The service's user can't enter the state folder, or there is no /proc.
			spec.Open = nil
			continue
		}
		// A file that was just written can still be held open for writing by a
		// child of ours between its fork and its exec.
		if !errors.Is(err, syscall.ETXTBSY) || try == 20 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("starting the service: %w", err)
	}
	p.pid = p.proc.Pid
	if s.Open != nil && !executes(p.pid, s.Open) {
		_ = p.proc.Kill()
		_, _ = p.proc.Wait() // it is gone either way
		return nil, fmt.Errorf("starting the service: %s was exchanged after it had been verified", s.File)
	}
	if s.Cgroup != "" && !cgroup.Has(s.Cgroup, p.pid) {
		r.log.Warn("the service runs outside its control group", "group", s.Cgroup)
	}
	ours.pids[p.pid] = true
	r.last.Store(int64(p.pid))
	if err := r.write(describe(p.pid, r.mark)); err != nil {
		r.log.Error("the service's process can't be recorded; if upkeep is killed, the service has to be ended by hand", "err", err)
	}
	go p.wait()
	return p, nil
}

// guard runs start, which starts a child that somebody else waits for, so that
// the reaper leaves it alone; done tells that it was waited for.
func (r *OS) guard(start func() (pid int, err error)) (done func(), err error) {
	ours.Lock()
	defer ours.Unlock()
	pid, err := start()
	if err != nil {
		return nil, err
	}
	ours.pids[pid] = true
	return func() { r.forget(pid) }, nil
}

func (r *OS) forget(pid int) {
	ours.Lock()
	delete(ours.pids, pid)
	ours.Unlock()
	r.reapNow()
}

type osProcess struct {
	runner  *OS
	spec    Spec
	proc    *os.Process
	pid     int
	started time.Time
	done    chan struct{}
	exit    Exit
	mark    string // of one that is not our child
}

func (p *osProcess) Pid() int              { return p.pid }
func (p *osProcess) Started() time.Time    { return p.started }
func (p *osProcess) Done() <-chan struct{} { return p.done }
func (p *osProcess) Exit() Exit            { return p.exit }

func (p *osProcess) Signal(s os.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone // its id may be somebody else's by now
	default:
		return p.proc.Signal(s)
	}
}

func (p *osProcess) wait() {
	st, err := p.proc.Wait()
	x := Exit{Code: -1, After: time.Since(p.started)}
	if err == nil {
		x.Code = st.ExitCode()
		if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			x.Signal, x.Core = ws.Signal(), ws.CoreDump()
		}
		x.Rusage = &Rusage{User: st.UserTime(), System: st.SystemTime(), MaxRSS: maxRSS(st)}
	}
	p.ended(x)
}

func (p *osProcess) ended(x Exit) {
	p.exit = x
	if h := p.spec.Handover; h != nil {
		h.Ended(p.pid, p.exit)
	}
	close(p.done)
	p.runner.forget(p.pid)
}

// Stop ends the process and everything that it started.
func (p *osProcess) Stop(ctx context.Context) (killed bool, err error) {
	if h := p.spec.Handover; h != nil {
		select {
		case <-p.done:
		default:
			h.Stopping(p.pid)
		}
	}
	_ = p.Signal(p.spec.Stop) // it may just have ended
	timer := time.NewTimer(p.spec.Grace)
	defer timer.Stop()
	last := time.Now().Add(maxPatience * p.spec.Grace)
wait:
	for {
		select {
		case <-p.done:
			break wait
		case now := <-timer.C:
			if until := p.spec.patience(last); until.After(now) {
				timer.Reset(until.Sub(now))
				continue
			}
		case <-ctx.Done():
		}
		killed = true
		break
	}
	// Also after a good end: what it left behind would hold its ports and files.
	err = p.killAll()
	if err != nil {
		return killed, err
	}
	if !p.runner.is(p.pid) {
		return killed, nil // another one was started beside it, and is recorded
	}
	if err := p.runner.write(record{}); err != nil {
		p.runner.log.Warn("the record of the ended process can't be cleared", "err", err)
	}
	return killed, nil
}

// maxPatience bounds what a service can ask for, as a multiple of the grace period.
const maxPatience = 10

// patience is until when the service wants to be waited for.
func (s *Spec) patience(last time.Time) time.Time {
	if s.Patience == nil {
		return time.Time{}
	}
	if t := s.Patience(); t.Before(last) {
		return t
	}
	return last
}

// killTime bounds waiting for a killed process; one in uninterruptible sleep
// (a dead disk) cannot be ended by anybody.
const killTime = 10 * time.Second

// killTries is how often it is looked at least: a machine that is so busy that
// this takes all the time hasn't ended what was killed either.
const killTries = 50

func (p *osProcess) killAll() error {
	if p.spec.Cgroup != "" {
		if err := cgroup.Kill(p.spec.Cgroup); err != nil {
			p.runner.log.Error(err.Error()) // what follows may still succeed
		}
	}
	deadline := time.Now().Add(killTime)
	for try := 0; ; try++ {
		left := p.killGroup()
		select {
		case <-p.done:
			left = p.runner.killOrphans() || p.killMarked() || left
			if !left {
				return nil
			}
		default:
			_ = p.proc.Kill()
		}
		if try >= killTries && time.Now().After(deadline) {
			return fmt.Errorf("stopping the service: process %d or one that it started is still there %v after it was killed", p.pid, killTime)
		}
		select {
		case <-p.done:
			time.Sleep(2 * time.Millisecond)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
