//go:build unix

package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// names are the versions of binaries.
func names(l binaryList) string {
	var s []string
	for _, b := range l {
		s = append(s, b.Version)
	}
	return strings.Join(s, " ")
}

func TestGoodFirst(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(0, 0).Add(time.Duration(h) * time.Hour) }
	b := func(version string, since, left int) installed {
		i := installed{Pair: Pair{version, testGo}}
		if since > 0 {
			i.Since = at(since)
		}
		if left > 0 {
			i.Left = at(left)
		}
		return i
	}
	for _, tc := range []struct {
		list           binaryList
		running, skips string
		first, before  string
	}{
		{binaryList{b("v1.0.0", 1, 3), b("v1.0.1", 3, 0)}, "v1.0.1", "", "v1.0.0 v1.0.1", "v1.0.0"},
		{binaryList{b("v1.0.0", 1, 5), b("v1.0.1", 0, 0), b("v1.0.2", 0, 0), b("v1.0.3", 5, 0)}, "v1.0.3", "v1.0.1 v1.0.2", "v1.0.0 v1.0.3 v1.0.1 v1.0.2", "v1.0.0"},
		// Downloaded, and then somebody or something said not now.
		{binaryList{b("v0.9.0", 1, 2), b("v1.0.0", 2, 0), b("v1.0.1", 0, 0)}, "v1.0.0", "", "v0.9.0 v1.0.0 v1.0.1", "v0.9.0"},
		{binaryList{b("v1.0.0", 1, 0), b("v1.0.1", 0, 0)}, "v1.0.0", "", "v1.0.0 v1.0.1", ""},
		// The one that was left last, not the one that was installed last.
		{binaryList{b("v1.0.0", 1, 9), b("v1.0.1", 3, 4), b("v1.0.2", 9, 0)}, "v1.0.2", "", "v1.0.0 v1.0.2 v1.0.1", "v1.0.0"},
		{binaryList{b("v1.0.0", 5, 2), b("v1.0.1", 2, 5)}, "v1.0.0", "v1.0.1", "v1.0.0 v1.0.1", ""},
	} {
		var skipped []Skip
		for v := range strings.FieldsSeq(tc.skips) {
			skipped = append(skipped, Skip{Pair: Pair{v, testGo}})
		}
		if got := names(tc.list.goodFirst(skipped)); got != tc.first {
			t.Errorf("%s: in the order %s, want %s", names(tc.list), got, tc.first)
		}
		got := ""
		if p := tc.list.previous(skipped, Pair{tc.running, testGo}, Action{}); p != nil {
			got = p.Version
		}
		if got != tc.before {
			t.Errorf("%s: back to %q, want %q", names(tc.list), got, tc.before)
		}
	}
}

// Bad versions don't take the place of a good one among what is kept, and a
// roll-back goes to what ran before.
func TestKept(t *testing.T) {
	b := newBench(t, "v1.0.1=exit1 v1.0.2=exit1")
	b.cfg.Updates.Keep = 1
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	for _, v := range []string{"v1.0.1", "v1.0.2", "v1.0.3"} {
		if err := b.engine.Do(t.Context(), Action{Verb: VerbUpdate, Version: v}); err != nil {
			t.Fatal(err)
		}
		b.until("end", func(s Status, _ string) bool {
			return s.Update == nil && s.LastResult != nil && s.LastResult.To.Version == v
		})
	}
	s := b.until("update", func(s Status, v string) bool { return v == "v1.0.3" })
	var kept []string
	for _, k := range s.Kept {
		kept = append(kept, k.Version)
	}
	slices.Sort(kept)
	if strings.Join(kept, " ") != "v1.0.0 v1.0.3" {
		t.Fatalf("%v are kept", kept)
	}
	if err := b.engine.Do(t.Context(), Action{Verb: VerbRollback}); err != nil {
		t.Fatal(err)
	}
	b.until("roll-back", func(s Status, v string) bool { return v == "v1.0.0" && s.Update == nil })
}
