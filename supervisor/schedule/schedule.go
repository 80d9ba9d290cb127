// Package schedule decides when an update that was chosen is installed.
//
// Everything here is a pure function of times and settings; the clock is
// trusted as the caller gives it. There are no files.
package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Input is everything a time depends on.
type Input struct {
	Now       time.Time
	NotBefore time.Time     // end of the version's delay
	Retry     time.Time     // end of the wait after a failure
	Windows   *Windows      // nil or empty: at any time
	Jitter    time.Duration // longest additional wait
	Seed      string        // what the jitter depends on: the same seed, the same wait
	// Spread is from when jitter counts, the time the version was chosen. An
	// update whose jitter is over by then doesn't wait again.
	Spread time.Time
}

// When is the outcome.
type When struct {
	At   time.Time // zero: never, the windows never open
	Wait string    // what it waits for, "" when At is not after Now
	Kind string    // the same as one of the constants below
}

// What an update waits for.
const (
	WaitDelay  = "delay"
	WaitRetry  = "failure"
	WaitWindow = "window"
	WaitSpread = "spread"
)

// At returns the earliest time to install.
func At(in Input) When {
	t, wait, kind := in.Now, "", ""
	if in.NotBefore.After(t) {
		t, wait, kind = in.NotBefore, "its delay", WaitDelay
	}
	if in.Retry.After(t) {
		t, wait, kind = in.Retry, "the wait after a failure", WaitRetry
	}
	start := in.Spread
	if start.IsZero() || start.After(in.Now) {
		start = in.Now
	}
	if in.NotBefore.After(start) {
		start = in.NotBefore
	}
	open := in.Windows.Next(t)
	if open.IsZero() {
		return When{Wait: "a window that never opens", Kind: WaitWindow}
	}
	if open.After(t) {
		t, wait, kind, start = open, "the next window", WaitWindow, open
	} else if in.Windows != nil && len(in.Windows.spans) > 0 {
		// Inside a window the wait counts from when that window opened.
		if opened := in.Windows.opened(t, in.Jitter); opened.After(start) {
			start = opened
		}
	}
	if spread := in.Windows.spread(start, Share(in.Seed), in.Jitter); spread.After(t) {
		if wait == "" {
			wait, kind = "its turn (machines are spread over "+in.Jitter.String()+")", WaitSpread
		}
		t = spread
	}
	return When{At: t, Wait: wait, Kind: kind}
}

// Share returns a number from 0 to 1 that depends on the seed only, to spread
// something over a time. Seeds that differ in one letter have nothing in common.
func Share(seed string) float64 {
	sum := sha256.Sum256([]byte(seed))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// Backoff returns the wait after the n-th failure in a row (n from 1): min,
// twice as long each time, at most max.
func Backoff(n int, min, max time.Duration) time.Duration {
	d := min
	for range n - 1 {
		if d >= max/2 {
			return max
		}
		d *= 2
	}
	if d > max {
		return max
	}
	return d
}
