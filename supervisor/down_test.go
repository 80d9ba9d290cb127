//go:build unix

package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A service that keeps ending is what somebody wants to exchange: orders are
// taken while nothing of it runs.
func TestUpdateWhileDown(t *testing.T) {
	b := newBench(t, "v1.0.0=crash:10ms")
	b.start()
	s := b.until("waits between starts", func(s Status, _ string) bool { return !s.Service.Running && s.Service.Restarts > 5 })
	if s.Code != CodeFailing || s.Service.Health.OK || !strings.Contains(s.Summary, "it exited with status 3") {
		t.Errorf("%s %q, health %+v", s.Code, s.Summary, s.Service.Health)
	}
	if err := b.engine.Do(t.Context(), Action{Verb: VerbRollback}); err == nil || !strings.Contains(err.Error(), "no earlier binary") {
		t.Errorf("rollback: %v", err)
	}
	// It may be started again in this moment, which makes no difference.
	if err := b.engine.Do(t.Context(), Action{Verb: VerbUpdate, Version: "v1.0.1"}); err != nil {
		t.Fatal(err)
	}
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
}

// The status says why nothing runs.
func TestCantStart(t *testing.T) {
	b := newBench(t, "v1.0.0=crash:100ms")
	b.start()
	b.until("first start", func(s Status, _ string) bool { return s.Service.Running || s.Service.Restarts > 0 })
	if err := os.Remove(filepath.Join(b.dir, "hello-v1.0.0-"+testGo)); err != nil {
		t.Fatal(err)
	}
	b.until("the reason", func(s Status, _ string) bool {
		return s.Code == CodeFailing && strings.Contains(s.Summary, "The service is down: it can't be started: ") && s.Update == nil
	})
}
