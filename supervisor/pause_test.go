package supervisor

import (
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

// Versions are asked for once a day, and soon again after a failure.
func TestAskPause(t *testing.T) {
	day := Defaults().Updates
	quick := day
	quick.Interval = config.Duration(time.Second)
	eager := day
	eager.BackoffMin = 0
	for _, tc := range []struct {
		cfg      UpdatesConfig
		failures int
		want     time.Duration
	}{
		{day, 0, 24 * time.Hour}, {day, 1, time.Minute}, {day, 2, 2 * time.Minute}, {day, 5, 16 * time.Minute},
		{day, 6, 30 * time.Minute}, {day, 1000, 30 * time.Minute}, {quick, 0, time.Second}, {quick, 7, time.Second}, {eager, 1, time.Second},
	} {
		if got := askPause(tc.cfg, tc.failures); got != tc.want {
			t.Errorf("after %d failures %v; want %v", tc.failures, got, tc.want)
		}
	}
	// A failure found by the slowest re-check is still one that the status tells.
	if recheckMax*11/10 >= maxBlind {
		t.Errorf("re-checks after %v, the status forgets after %v", recheckMax, maxBlind)
	}
}
