package supervisor

import (
	"context"
	"fmt"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/process"
)

// firstInterval is the pace of checks until the first good one, so that a
// quick start is seen quickly.
const firstInterval = 50 * time.Millisecond

// probation watches the new process until it may stay. That the process ends
// is an event of its own.
func (e *Engine) probation(ctx context.Context, c Checker, cfg HealthConfig, proc process.Process) outcome {
	fail := func(format string, args ...any) outcome {
		return outcome{event: evFail, reason: fmt.Sprintf(format, args...), apply: blame}
	}
	start := time.Now()
	cfg.StartTime = config.Duration(e.front.left(cfg.StartTime.D()))
	if why, ok := e.awaitReady(ctx, cfg, proc); !ok {
		if why != "" {
			return fail("%s", why)
		}
		return outcome{event: evStop}
	}
	ready := time.Now()
	if !c.Configured() {
		if err := e.takeTraffic(ctx, proc); err != nil {
			if ctx.Err() != nil {
				return outcome{event: evStop}
			}
			return fail("%v", err)
		}
		if !wait(ctx, proc, cfg.Probation.D()-time.Since(start)) {
			return outcome{event: evStop}
		}
		return outcome{event: evDone}
	}
	good, bad, ever := 0, 0, false
	pace := min(firstInterval, cfg.Interval.D())
	for {
		detail, err := c.Check(ctx)
		if ctx.Err() != nil {
			return outcome{event: evStop}
		}
		h := Health{Configured: true, OK: err == nil, Detail: detail, Checked: e.now()}
		if err != nil {
			h.Detail = err.Error()
		}
		e.post(func() { e.health = h; e.changed() })
		since := time.Since(start)
		switch {
		case err == nil:
			if !ever {
				e.listening.ready()
				if err := e.takeTraffic(ctx, proc); err != nil {
					if ctx.Err() != nil {
						return outcome{event: evStop}
					}
					return fail("%v", err)
				}
			}
			good, bad, ever = good+1, 0, true
			pace = cfg.Interval.D()
		case !ever && time.Since(ready) >= cfg.StartTime.D():
			return fail("it was not healthy within %v: %v", cfg.StartTime, err)
		case ever:
			good, bad = 0, bad+1
			if bad >= max(1, cfg.Failures) {
				return fail("it became unhealthy: %v", err)
			}
		}
		left := cfg.Probation.D() - since
		if left <= 0 && good >= max(1, cfg.Successes) {
			return outcome{event: evDone}
		}
		if good >= max(1, cfg.Successes) {
			pace = min(pace, max(left, 0))
		}
		if !wait(ctx, proc, pace) {
			return outcome{event: evStop}
		}
	}
}

// wait returns false when ctx or the process ended before the time was over.
func wait(ctx context.Context, proc process.Process, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-proc.Done():
		// The exit is reported by whoever watches the process; the work waits
		// to be overtaken by that.
		<-ctx.Done()
	}
	return false
}
