//go:build unix

package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

// The plan of a supervisor that does not run, and of one that never ran, is
// told without changing anything.
func TestPreview(t *testing.T) {
	b := newBench(t, "")
	if s, err := Preview(t.Context(), b.cfg, b.deps, false); err != nil || s.Plan.Candidate != nil || s.Service.Version != "v1.0.0" {
		t.Errorf("before the first start: %+v, %v", s.Plan, err)
	}
	if _, err := os.Stat(b.cfg.State); err == nil {
		t.Error("a state folder was made")
	}
	b.cfg.Updates.Paused = true
	b.publish("v1.0.1")
	b.start()
	b.until("knowledge", func(s Status, v string) bool { return s.Code == CodePaused && v == "v1.0.0" })
	b.stop()
	name := filepath.Join(b.cfg.State, "state")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b.publish("v1.0.2")
	for ask, want := range map[bool]string{false: "v1.0.1", true: "v1.0.2"} {
		s, err := Preview(t.Context(), b.cfg, b.deps, ask)
		if err != nil || s.Plan.Candidate == nil || s.Plan.Candidate.Version != want || !s.Paused || s.Service.Running {
			t.Errorf("asking %v: %+v, %v", ask, s.Plan, err)
		}
	}
	if after, err := os.ReadFile(name); err != nil || string(after) != string(before) {
		t.Errorf("the state was changed: %v", err)
	}
}
