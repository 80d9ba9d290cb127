//go:build unix

package supervisor

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Since when answers are stale is in the status, and silence makes it fail,
// until there is a fresh answer.
func TestStale(t *testing.T) {
	b := newBench(t, "")
	b.start()
	b.until("first answer", func(s Status, v string) bool { return v == "v1.0.0" && !s.Knowledge.Fresh.IsZero() })
	since := time.Now().Add(-100 * time.Hour).Round(time.Second)
	learn := func(k Known, err error) Status {
		t.Helper()
		var s Status
		// The bench's own polls come between, so it is looked at at once.
		if err := b.engine.do(t.Context(), func() { b.engine.learned("example.org/hello", k, err); s = b.engine.status() }); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := learn(Known{StaleSince: since}, errors.New("no route"))
	if !s.Knowledge.StaleSince.Equal(since) || s.Knowledge.Silent || s.Code != CodeCurrent {
		t.Errorf("stale: %s %q, %+v", s.Code, s.Summary, s.Knowledge)
	}
	s = learn(Known{StaleSince: since, Silent: true}, errors.New("no route"))
	if s.Code != CodeFailing || !strings.Contains(s.Summary, "No fresh answer about versions since") || !strings.Contains(s.Summary, "no route") {
		t.Errorf("silent: %s %q", s.Code, s.Summary)
	}
	if s = learn(Known{Source: "test"}, nil); !s.Knowledge.StaleSince.IsZero() || s.Knowledge.Silent || s.Code != CodeCurrent {
		t.Errorf("fresh again: %s %q, %+v", s.Code, s.Summary, s.Knowledge)
	}
}
