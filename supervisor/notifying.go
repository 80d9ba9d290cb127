package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/upkeep/supervisor/cgroup"
	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/notify"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/proxy"
)

// The values of process.notify.
const (
	notifyAuto  = "auto"
	notifyReady = "ready"
	notifyOff   = "off"
)

// company is what belongs to one run of the service beside its process.
type company struct {
	session  *notify.Session // nil = the service can't say anything
	group    string          // its control group's folder, "" = none
	main     atomic.Int64    // process id
	backends proxy.Backends  // where it listens behind the proxy; nil = there is none
}

// belongs reports whether a process is of the run.
func (c *company) belongs(pid int) bool {
	return process.Belongs(pid, int(c.main.Load())) || c.group != "" && cgroup.Has(c.group, pid)
}

// startProcess starts the service with its notify socket and control group,
// where there can be some. It may be called from any goroutine.
func (e *Engine) startProcess(spec process.Spec) (process.Process, error) {
	c := new(company)
	if err := e.behindProxy(c, &spec); err != nil {
		return nil, err
	}
	if e.deps.Groups != nil {
		dir, err := e.deps.Groups.Make()
		if err != nil {
			e.log.Warn("the service has no control group of its own", "err", err)
		}
		c.group, spec.Cgroup = dir, dir
	}
	if s := e.openSession(c, spec.Env); s != nil {
		c.session = s
		spec.Env = append(spec.Env[:len(spec.Env):len(spec.Env)], s.Env()...)
		spec.Patience = s.Extended
	}
	if e.deps.Store != nil {
		for _, k := range e.deps.Store.Files() {
			spec.ListenFDs = append(spec.ListenFDs, process.ListenFD{Name: k.Name, File: k.File})
		}
	}
	p, err := e.deps.Runner.Start(spec)
	if err != nil {
		c.end(e)
		return nil, err
	}
	c.began(p)
	e.companies.Store(p, c)
	return p, nil
}

// openSession makes a notify socket, unless the service is not to have one or
// the configuration gives it another.
func (e *Engine) openSession(c *company, env []string) *notify.Session {
	if e.deps.Notify == nil || e.conf().Process.Notify == notifyOff {
		return nil
	}
	for _, kv := range env {
		if strings.HasPrefix(kv, "NOTIFY_SOCKET=") {
			return nil
		}
	}
	s, err := e.deps.Notify(e.sessionOptions(c))
	if err != nil {
		e.log.Warn("the service can't tell that it is ready", "err", err)
		return nil
	}
	return s
}

func (e *Engine) sessionOptions(c *company) notify.Options {
	cfg := e.conf()
	return notify.Options{
		Belongs: c.belongs, Watchdog: cfg.Process.Watchdog.D(), Patience: cfg.Health.StartTime.D(),
		Store: e.deps.Store, Log: e.log,
	}
}

// began tells that the run's process is known.
func (c *company) began(p process.Process) {
	c.main.Store(int64(p.Pid()))
	if c.session != nil {
		c.session.Attach()
	}
}

// end closes what belonged to a run that is over, or never began.
func (c *company) end(e *Engine) {
	if c.session != nil {
		c.session.Close()
	}
	if c.group != "" {
		if err := cgroup.Kill(c.group); err != nil {
			e.log.Error(err.Error())
		}
	}
}

func (e *Engine) company(p process.Process) *company {
	if p == nil {
		return nil
	}
	v, _ := e.companies.Load(p)
	c, _ := v.(*company)
	return c
}

// session returns a process's notify session, nil when it has none.
func (e *Engine) session(p process.Process) *notify.Session {
	if c := e.company(p); c != nil {
		return c.session
	}
	return nil
}

// accompany follows what a run of the service says of itself, until it ends.
func (e *Engine) accompany(p process.Process) {
	c := e.company(p)
	if c == nil {
		return
	}
	go func() {
		var changed, expired <-chan struct{}
		if c.session != nil {
			changed, expired = c.session.Changed(), c.session.Expired()
		}
		for {
			select {
			case <-changed:
				e.post(e.changed)
			case <-expired:
				expired = nil
				e.post(func() { e.missedWatchdog(p) })
			case <-p.Done():
				// The group is ended with all that is left in it by whoever stops the process.
				if c.session != nil {
					c.session.Close()
				}
				e.companies.Delete(p)
				return
			case <-e.ended:
				return
			}
		}
	}()
}

// abortTime is what a hanging service gets to write down where it hangs, which
// Go programs do on SIGABRT.
const abortTime = 5 * time.Second

// missedWatchdog ends a service that does not say any more that it works. What
// follows is the same as when it ends by itself.
func (e *Engine) missedWatchdog(p process.Process) {
	if e.proc != p || e.stopping {
		return
	}
	s := StateIdle
	if e.doc.Update != nil {
		s = e.doc.Update.State
	}
	if s == StateStopping || s == StateRollingBack {
		return // it is being ended
	}
	e.addEvent(Event{Kind: "watchdog", Version: e.info.Spec.Version, Text: "the service did not send WATCHDOG=1 in time and is ended"})
	if s == StateStarting || s == StateProbation {
		blame(e.doc.Update)
		e.event(evFail, "it did not send WATCHDOG=1 in time")
		return
	}
	_ = p.Signal(syscall.SIGABRT) // it may just have ended
	time.AfterFunc(abortTime, func() { _ = p.Signal(os.Kill) })
}

// leaving notes, of the version that is being stopped, what the next one is
// measured by.
func (e *Engine) leaving(p process.Process) {
	if s := e.session(p); s != nil {
		e.expectReady.Store(s.State().Ready)
	}
}

// maxPatience bounds how often the time to start or stop can be extended, as a
// multiple of it.
const maxPatience = 10

// awaitReady waits until the new process has said READY=1, when it has to: by
// configuration, or because the version before has. It returns what is wrong.
func (e *Engine) awaitReady(ctx context.Context, cfg HealthConfig, proc process.Process) (reason string, ok bool) {
	s := e.session(proc)
	mode := e.conf().Process.Notify
	if s == nil || mode != notifyReady && !(mode == notifyAuto && e.expectReady.Load()) {
		return "", true
	}
	start := time.Now()
	for {
		until := start.Add(cfg.StartTime.D())
		if ext := s.Extended(); ext.After(until) {
			until = ext
		}
		if last := start.Add(maxPatience * cfg.StartTime.D()); until.After(last) {
			until = last
		}
		left := time.Until(until)
		if left <= 0 {
			said := ""
			if st := s.State(); st.Status != "" {
				said = "; it said: " + st.Status
			}
			return fmt.Sprintf("it was not ready (READY=1) within %v%s", time.Since(start).Round(100*time.Millisecond), said), false
		}
		t := time.NewTimer(left)
		select {
		case <-s.Ready():
			t.Stop()
			return "", true
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return "", false
		case <-proc.Done():
			t.Stop()
			// The exit is reported by whoever watches the process.
			<-ctx.Done()
			return "", false
		}
	}
}

// recoverGroups ends what a killed supervisor left in the service's control groups.
func (e *Engine) recoverGroups() {
	if e.deps.Groups == nil {
		return
	}
	for _, dir := range e.deps.Groups.Left() {
		e.log.Warn("ending what a killed supervisor left running", "group", filepath.Base(dir))
		if err := cgroup.Kill(dir); err != nil {
			e.addEvent(Event{Kind: "left_over", Text: err.Error()})
		}
	}
}

// groupKey is the control group's folder in a bundle.
const groupKey = "cgroup"

// handOffCompany puts what belongs to the running process into the bundle.
func (e *Engine) handOffCompany(b *handoff.Bundle) error {
	c := e.company(e.proc)
	if c == nil {
		return nil
	}
	if c.group != "" {
		if err := b.Put(groupKey, c.group); err != nil {
			return err
		}
	}
	if c.session != nil {
		if err := c.session.Handoff(b); err != nil {
			return err
		}
	}
	if e.deps.Store != nil {
		return e.deps.Store.Handoff(b)
	}
	return nil
}

// takeOverCompany goes on with what belongs to a process that is being taken
// over, and completes its specification. What can't be had is said; the service
// runs all the same.
func (e *Engine) takeOverCompany(b *handoff.Bundle, spec *process.Spec) *company {
	c := new(company)
	e.takeOverFront(b, c)
	b.Get(groupKey, &c.group)
	spec.Cgroup = c.group
	if e.deps.Store != nil {
		if err := e.deps.Store.Attach(b); err != nil {
			e.log.Warn(err.Error())
		}
	}
	if e.deps.Notify == nil {
		return c
	}
	s, err := notify.Attach(b, e.sessionOptions(c))
	if err != nil {
		e.log.Warn(err.Error())
	}
	if s != nil {
		c.session = s
		spec.Patience = s.Extended
	}
	return c
}
