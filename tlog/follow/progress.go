package follow

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Progress is how far a long catching-up is.
type Progress struct {
	Done, Target int64         // records
	Rate         float64       // records a second, lately
	Left         time.Duration // at that rate, 0 if unknown
	Finished     bool
}

// A progress tells how catching up goes, about once a second.
type progress struct {
	report   func(Progress)
	target   int64
	start    time.Time
	from     int64
	told     time.Time
	toldAt   int64
	rate     float64
	everTold bool
	now      func() time.Time
	calls    int
}

func newProgress(cfg Config, from, target int64, now time.Time) *progress {
	p := &progress{report: cfg.Progress, target: target, start: now, from: from, told: now, toldAt: from, now: time.Now}
	if p.report == nil {
		p.report = Lines(cfg.Logger, cfg.Log.Name())
	}
	return p
}

// done is called after every tile.
func (p *progress) done(size int64) {
	if p.calls++; p.calls%16 != 0 { // not worth asking for the time at each tile
		return
	}
	now := p.now()
	d := now.Sub(p.told)
	if d < time.Second {
		return
	}
	rate := float64(size-p.toldAt) / d.Seconds()
	if p.rate == 0 {
		p.rate = rate
	}
	p.rate += (rate - p.rate) / 5 // smoothed, so that the time left doesn't jump
	p.told, p.toldAt, p.everTold = now, size, true
	r := Progress{Done: size, Target: p.target, Rate: p.rate}
	if p.rate > 0 {
		r.Left = time.Duration(float64(p.target-size) / p.rate * float64(time.Second))
	}
	p.report(r)
}

func (p *progress) finish() {
	if !p.everTold {
		return
	}
	d := p.now().Sub(p.start).Seconds()
	p.report(Progress{Done: p.target, Target: p.target, Rate: float64(p.target-p.from) / max(d, 1e-9), Finished: true})
}

// Lines returns a reporter that writes a log line every ten seconds.
func Lines(log *slog.Logger, name string) func(Progress) {
	var told time.Time
	return func(p Progress) {
		if !p.Finished && time.Since(told) < 10*time.Second {
			return
		}
		told = time.Now()
		msg := "reading the log"
		if p.Finished {
			msg = "the index has caught up with the log"
		}
		log.Info(msg, "log", name, "records", p.Done, "of", p.Target, "records_per_second", int64(p.Rate), "left", p.Left.Round(time.Second))
	}
}

// Bar returns a reporter that draws a bar on a terminal.
func Bar(w io.Writer) func(Progress) {
	return func(p Progress) {
		fmt.Fprint(w, "\r\x1b[K"+bar(p, 30))
		if p.Finished {
			fmt.Fprintln(w)
		}
	}
}

func bar(p Progress, width int) string {
	share := 1.0
	if p.Target > 0 {
		share = min(max(float64(p.Done)/float64(p.Target), 0), 1)
	}
	n := int(share * float64(width))
	s := fmt.Sprintf("[%s%s] %5.1f %%  %d of %d records, %d a second", strings.Repeat("#", n), strings.Repeat(".", width-n), 100*share, p.Done, p.Target, int64(p.Rate))
	if p.Left > 0 {
		s += ", " + p.Left.Round(time.Second).String() + " left"
	}
	return s
}
