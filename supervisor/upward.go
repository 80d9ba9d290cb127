package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.org/upkeep/supervisor/notify"
)

// How long is asked for at a time while something takes long, and how often.
const (
	extendBy    = 20 * time.Second
	extendEvery = 5 * time.Second
)

// TellSystemd keeps systemd informed about this supervisor until ctx ends:
// that it is ready when the service runs, how things are, and that it works.
// stopping ends when the supervisor begins to end.
func (e *Engine) TellSystemd(ctx context.Context, stopping context.Context, up *notify.Upward) {
	if up == nil || !e.WaitStarted(ctx) || !e.waitReady(ctx, stopping, up) {
		return
	}
	changed := e.Watch(ctx)
	e.tellStatus(ctx, up)
	if stopping.Err() == nil {
		up.Ready()
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	// It is well when its goroutine still takes orders.
	go up.Watchdog(watch, func(ctx context.Context) error { return e.do(ctx, func() {}) })
	begun := stopping.Done()
	var tick <-chan time.Time
	for {
		select {
		case _, open := <-changed:
			if !open {
				return // ended, or another version goes on
			}
			e.tellStatus(ctx, up)
		case <-begun:
			begun = nil
			up.Stopping()
			up.Extend(extendBy)
			t := time.NewTicker(extendEvery)
			defer t.Stop()
			tick = t.C
		case <-tick:
			// Bounded by the grace period of the service.
			up.Extend(extendBy)
		case <-e.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// waitReady waits for the first READY=1 of a service that is configured to say it.
func (e *Engine) waitReady(ctx, stopping context.Context, up *notify.Upward) bool {
	if e.conf().Process.Notify != notifyReady {
		return true
	}
	var s *notify.Session
	if err := e.do(ctx, func() { s = e.session(e.proc) }); err != nil || s == nil {
		return err == nil
	}
	limit := time.Now().Add(maxPatience * e.conf().Health.StartTime.D())
	t := time.NewTicker(extendEvery)
	defer t.Stop()
	for {
		select {
		case <-s.Ready():
			return true
		case <-stopping.Done():
			return true
		case <-t.C:
			if now := time.Now(); now.Before(limit) && now.Before(s.Extended()) {
				up.Extend(extendBy)
			}
		case <-e.ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (e *Engine) tellStatus(ctx context.Context, up *notify.Upward) {
	if s, err := e.Status(ctx); err == nil {
		up.Status(statusLine(&s))
	}
}

// statusLine is the status as systemctl shows it.
func statusLine(s *Status) string {
	text := strings.TrimSpace(s.Service.Name + " " + s.Service.Version) // of a foreign binary none is known
	switch {
	case s.Update != nil:
		return text + fmt.Sprintf("; to %s: %s", s.Update.To.Version, s.Update.Step)
	case !s.Service.Running:
		return text + " is down"
	case s.Code == CodeFailing:
		return text + " runs. " + s.Summary
	}
	text += " ok"
	c := s.Plan.Candidate
	switch {
	case c == nil:
	case s.Paused:
		text += fmt.Sprintf("; %s waits, updates are paused", c.Version)
	case c.Manual || !s.Plan.Automatic || c.When.IsZero():
		text += fmt.Sprintf("; %s waits for an order", c.Version)
	case c.When.Sub(s.Now) > 6*24*time.Hour:
		text += fmt.Sprintf("; next %s %s", c.Version, c.When.Local().Format("Mon 2 Jan 15:04"))
	default:
		text += fmt.Sprintf("; next %s %s", c.Version, c.When.Local().Format("Mon 15:04"))
	}
	return text
}
