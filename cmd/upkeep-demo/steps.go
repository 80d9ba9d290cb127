package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// A reporter prints one line a step, with its duration, and on a terminal the
// time that the step under way has taken.
type reporter struct {
	w        io.Writer
	terminal bool

	mu     sync.Mutex
	now    string // step under way
	detail string
	began  time.Time
	steps  int
	failed int
}

// step runs one step. Its function returns what was seen, for the line.
func (r *reporter) step(ctx context.Context, name string, f func(ctx context.Context) (seen string, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	r.now, r.detail, r.began = name, "", time.Now()
	r.mu.Unlock()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	if r.terminal {
		wg.Go(func() { r.tick(stop) })
	}
	seen, err := f(ctx)
	close(stop)
	wg.Wait()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	r.now = ""
	r.steps++
	verdict := "ok  "
	if err != nil {
		verdict, seen = "FAIL", err.Error()
		r.failed++
	}
	if err != nil && ctx.Err() != nil {
		verdict, seen = "end ", "interrupted"
	}
	if seen != "" {
		seen = ": " + seen
	}
	fmt.Fprintf(r.w, "%s %7.2f s  %s%s\n", verdict, time.Since(r.began).Seconds(), name, seen)
	return err
}

func (r *reporter) tick(stop chan struct{}) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			r.mu.Lock()
			line := fmt.Sprintf("...  %7.1f s  %s", time.Since(r.began).Seconds(), r.now)
			if r.detail != "" {
				line += ": " + r.detail
			}
			if len(line) > 110 {
				line = line[:110]
			}
			r.clear()
			fmt.Fprint(r.w, line)
			r.mu.Unlock()
		}
	}
}

func (r *reporter) clear() {
	if r.terminal {
		fmt.Fprint(r.w, "\r\x1b[K")
	}
}

// progress says how far the step under way is.
func (r *reporter) progress(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.detail = fmt.Sprintf(format, args...)
}

// say prints a line between steps or in the middle of one.
func (r *reporter) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintf(r.w, "note           "+format+"\n", args...)
}
