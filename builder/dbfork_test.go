package builder

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A checksum database that signs another history than before is an alarm, and
// nothing is built from what it says.
func TestDatabaseForks(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.Tries = 1 }})
	lookup := func(v string) string { return "/tlog/lookup/example.org/hello@" + v + "/" + target() + "/" }
	if resp, body := ts.get(t, "GET", lookup("v1.0.0")); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	// What this server has seen was another history.
	other := newEcosystemWithKey(t, e.signer)
	for i := range 3 {
		other.publish(fmt.Sprintf("example.org/x%d", i), "v1.0.0", "-- x.go --\npackage x\n")
	}
	publishHello(other)
	e.mu.Lock()
	e.log = other.log
	e.mu.Unlock()
	resp, body := ts.get(t, "GET", lookup("v1.0.1"))
	if resp.StatusCode != 500 || !strings.Contains(string(body), "contradicts itself") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if st := ts.Status(t.Context()); st.LogSize != 1 || len(st.Alarms) != 1 || st.Alarms[0].Kind != "hash_mismatch" {
		t.Errorf("%d records, alarms %+v", st.LogSize, st.Alarms)
	}
	evidence, err := filepath.Glob(filepath.Join(ts.dir, "sumdb", "*.fork-*"))
	if err != nil || len(evidence) != 1 {
		t.Fatalf("evidence %q, %v", evidence, err)
	}
	if text, err := os.ReadFile(evidence[0]); err != nil || strings.Count(string(text), "go.sum database tree") != 2 {
		t.Errorf("%s, %v", text, err)
	}
}

// An alarm that is raised again and again is shown once and pushes no other out.
func TestAlarmsOnce(t *testing.T) {
	ts := start(t, newEcosystem(t), testOptions{idle: true})
	ts.alarm("sum_differs", "a")
	for range maxAlarms + 1 {
		ts.alarm("hash_mismatch", "b")
	}
	if got := ts.Status(t.Context()).Alarms; len(got) != 2 || got[0].Text != "b" || got[1].Text != "a" {
		t.Errorf("alarms: %+v", got)
	}
}
