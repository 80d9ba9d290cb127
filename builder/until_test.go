package builder

import (
	"testing"
	"time"
)

// patience is how long the tests wait for what has to come: a machine may be slow.
const patience = 5 * time.Minute

// until waits for a condition that nothing tells of.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// await waits for a channel to be closed, or something to come from it.
func await[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
}
