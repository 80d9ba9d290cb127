package supervisor

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The services of one host that are started in one moment, as by a boot, ask
// one after the other, and none of them later than an interval.
func TestFirstAsk(t *testing.T) {
	const interval = 24 * time.Hour
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		last   time.Time
		within time.Duration
	}{
		{"recent", now.Add(-time.Minute), interval},
		{"half an interval old", now.Add(-interval / 2), interval},
		{"overdue", now.Add(-3 * interval), time.Hour},
		{"overdue by an instant", now.Add(-interval), time.Hour},
		{"of the future", now.Add(time.Hour), time.Hour},
	} {
		var waits []time.Duration
		for i := range 20 {
			w := firstAsk(now, tc.last, interval, "seed", fmt.Sprint("example.org/m", i))
			if again := firstAsk(now, tc.last, interval, "seed", fmt.Sprint("example.org/m", i)); again != w {
				t.Errorf("%s: %v, then %v", tc.name, w, again)
			}
			waits = append(waits, w)
		}
		slices.Sort(waits)
		if waits[0] < 0 || waits[19] >= tc.within {
			t.Errorf("%s: %v to %v", tc.name, waits[0], waits[19])
		}
		// The seeds are fixed: these twenty fill more than half of the time, and no two meet.
		if waits[19]-waits[0] < tc.within/2 || len(slices.Compact(waits)) != 20 {
			t.Errorf("%s: %v", tc.name, waits)
		}
	}
	if w := firstAsk(now, time.Time{}, interval, "seed", "m"); w != 0 {
		t.Errorf("a fresh install waits %v", w)
	}
	// A service's turn stays at its time of day, however often it is started.
	turn := now.Add(firstAsk(now, now.Add(-time.Minute), interval, "seed", "m"))
	for h := range 24 {
		at := now.Add(time.Duration(h) * time.Hour)
		next := at.Add(firstAsk(at, at.Add(-time.Minute), interval, "seed", "m"))
		if d := next.Sub(turn) % interval; d != 0 {
			t.Errorf("started at %v it asks at %v, not at its turn of %v", at, next, turn)
		}
	}
}
