package supervisor

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The services of one host that are started in one moment, as by a boot, ask
// one after the other, and none of them much later than an interval.
func TestFirstAsk(t *testing.T) {
	const interval = 24 * time.Hour
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	of := func(i int) turn { return turn{"host", fmt.Sprint("service ", i), fmt.Sprint("example.org/m", i)} }
	for _, tc := range []struct {
		name   string
		last   time.Time
		within time.Duration
	}{
		{"recent", now.Add(-time.Minute), interval + interval/50},
		{"half an interval old", now.Add(-interval / 2), interval + interval/50},
		{"overdue", now.Add(-3 * interval), time.Hour + apart},
		{"overdue by an instant", now.Add(-interval), time.Hour + apart},
		{"of the future", now.Add(time.Hour), time.Hour + apart},
	} {
		var waits []time.Duration
		for i := range 20 {
			w := of(i).first(now, tc.last, interval)
			if again := of(i).first(now, tc.last, interval); again != w {
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
	if w := of(1).first(now, time.Time{}, interval); w != 0 {
		t.Errorf("a fresh install waits %v", w)
	}
}

// A service's turn stays at its time of day, however often it is started or
// asked for something between; services of one module come close together, and
// those of another host do not.
func TestTurn(t *testing.T) {
	const interval = 24 * time.Hour
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	one, two, other := turn{"host", "one", "m"}, turn{"host", "two", "m"}, turn{"another", "one", "m"}
	when := start.Add(one.next(start, interval))
	for m := range 24 * 60 {
		now := start.Add(time.Duration(m) * time.Minute)
		next := now.Add(one.next(now, interval))
		if d := next.Sub(when) % interval; d != 0 {
			t.Fatalf("at %v the turn is %v, not that of %v", now, next, when)
		}
		if w := next.Sub(now); w < interval/50 || w > interval+interval/50 {
			t.Fatalf("at %v the turn comes after %v", now, w)
		}
	}
	if next := when.Add(one.next(when, interval)); next.Sub(when) != interval {
		t.Errorf("after its turn the service waits %v", next.Sub(when))
	}
	if d := two.at(interval) - one.at(interval); d == 0 || d > apart || d < -apart {
		t.Errorf("two services of one module are %v apart", d)
	}
	if d := other.at(interval) - one.at(interval); d < time.Minute && d > -time.Minute {
		t.Errorf("two hosts are %v apart", d)
	}
	for _, short := range []time.Duration{time.Millisecond, 200 * time.Millisecond, time.Second} {
		if w := one.next(start, short); w <= 0 || w > short+short/50 {
			t.Errorf("interval %v: %v", short, w)
		}
	}
}
