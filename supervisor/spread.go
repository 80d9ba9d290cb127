package supervisor

import (
	"context"
	"os"
	"strings"
	"time"

	"example.org/upkeep/supervisor/schedule"
)

const (
	// overdue is over how long the questions of a host's services are spread
	// when their time was over before the start, as after a boot.
	overdue = time.Hour
	// apart is over how long services with the same turn are spread, so that
	// the first one's answer is at hand for the others.
	apart = 30 * time.Second
)

// A turn is a service's own time within the interval. All services of a host
// that are of one module have the same one, but for seconds, so that one answer
// can serve them; those of other modules and hosts have others, so that a host's
// services can't be read from one burst of questions, after a boot neither.
type turn struct {
	host, service, module string // seeds
}

// at is where in a time the turn is, and how long after it the service's own.
func (t turn) at(d time.Duration) time.Duration {
	own := schedule.Share(t.service) * float64(min(d/100, apart))
	return time.Duration(schedule.Share(t.host+" "+t.module)*float64(d) + own)
}

// next returns how long it is until the turn comes. It is not so near that
// somebody who has just asked would ask again.
func (t turn) next(now time.Time, interval time.Duration) time.Duration {
	wait := (t.at(interval) - time.Duration(now.UnixNano())%interval) % interval
	if wait < interval/50 {
		wait += interval
	}
	return wait
}

// first returns how long to wait for the first question after the start, with
// the time of the last answer. Somebody who knows nothing yet asks at once.
func (t turn) first(now, last time.Time, interval time.Duration) time.Duration {
	if last.IsZero() || interval <= 0 {
		return 0
	}
	if age := now.Sub(last); age < 0 || age >= interval {
		return t.at(min(interval/2, overdue))
	}
	return t.next(now, interval)
}

// turn is the engine's own. It belongs on the engine's goroutine.
func (e *Engine) turn(module string) turn {
	host := hostSeed()
	if host == "" {
		host = e.doc.Seed
	}
	return turn{host, e.doc.Seed, module}
}

// hostSeed differs from host to host; "" where nobody knows.
func hostSeed() string {
	id, err := os.ReadFile("/etc/machine-id") // machine-id(5)
	if err != nil || len(id) < 32 {
		return ""
	}
	name, err := os.Hostname() // that of images that were copied is the same
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id)) + " " + name
}

// firstAsk is the wait before the engine's first question.
func (e *Engine) firstAsk(ctx context.Context) (wait time.Duration) {
	_ = e.do(ctx, func() {
		if e.taken && !e.knowledge.NextAsk.IsZero() {
			wait = max(0, e.knowledge.NextAsk.Sub(e.now())) // as the version before had it in mind
			return
		}
		k := e.doc.Known
		if k == nil || e.knowledge.Error != "" {
			return
		}
		wait = e.turn(k.Module).first(e.now(), k.At, e.conf().Updates.Interval.D())
		e.knowledge.NextAsk = e.now().Add(wait)
	}) // when upkeep ends, nobody asks
	return wait
}

// nextAsk is the wait until the next question, after so many failures in a row.
func (e *Engine) nextAsk(ctx context.Context, failures int) (pause time.Duration) {
	pause = time.Second
	_ = e.do(ctx, func() {
		if k := e.doc.Known; failures == 0 && k != nil {
			pause = e.turn(k.Module).next(e.now(), e.conf().Updates.Interval.D())
		} else {
			pause = spread(askPause(e.conf().Updates, failures))
		}
		e.knowledge.NextAsk = e.now().Add(pause)
	}) // when upkeep ends, nobody asks
	return pause
}
