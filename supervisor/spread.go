package supervisor

import (
	"context"
	"time"

	"example.org/upkeep/supervisor/schedule"
)

// overdue is over how long the questions of a host's services are spread when
// their time was over before the start, as after a boot.
const overdue = time.Hour

// firstAsk returns how long to wait for the first question after the start.
// Each service has a turn of its own within the interval, by its seed and its
// module, so that those of one host don't ask in one burst, after a boot
// neither. Somebody who knows nothing yet asks at once.
func firstAsk(now, last time.Time, interval time.Duration, seed, module string) time.Duration {
	if last.IsZero() || interval <= 0 {
		return 0
	}
	turn := schedule.Share(seed + " " + module)
	age := now.Sub(last)
	if age < 0 || age >= interval {
		return time.Duration(turn * float64(min(interval/2, overdue)))
	}
	// The next time that is the service's turn, whenever it was started.
	since := time.Duration(now.UnixNano()) % interval
	wait := time.Duration(turn*float64(interval)) - since
	if wait < 0 {
		wait += interval
	}
	return wait
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
		wait = firstAsk(e.now(), k.At, e.conf().Updates.Interval.D(), e.doc.Seed, k.Module)
		e.knowledge.NextAsk = e.now().Add(wait)
	}) // when upkeep ends, nobody asks
	return wait
}
