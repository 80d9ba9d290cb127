package index

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

// Records are read while others are merged, and when that merge fails nothing
// of either is lost.
func TestMergeBehind(t *testing.T) {
	content := logtest.Content{Spread: 1000, Duplicate: 777}
	tile := func(n int64) (*tlog.Tile, *tileRecs) {
		tile := &tlog.Tile{First: n * 256}
		for i := range int64(256) {
			tile.Records = append(tile.Records, content.Append(nil, tile.First+i))
		}
		var recs tileRecs
		prepare(tile, &recs)
		return tile, &recs
	}
	const tiles = 60
	for _, tc := range []struct {
		name string
		ends int // after so many tiles a merge starts, and the one before ends
		fail string
	}{{"no merge", tiles, ""}, {"merges", 7, ""}, {"merges that fail", 7, "merge"}, {"journals that fail", 7, "journal"}} {
		events := 0
		s, err := Open(filepath.Join(t.TempDir(), "index.db"), Options{MergeModules: 50, OnEvent: func(Event) { events++ }})
		if err != nil {
			t.Fatal(err)
		}
		for n := range int64(tiles) {
			s.apply(tile(n))
			if int(n)%tc.ends != tc.ends-1 {
				continue
			}
			if s.behind != nil {
				<-s.behind.done
				if tc.fail == "merge" {
					s.behind.err, s.behind.pos.Merging = errors.New("it failed"), true
				}
			}
			if failed := s.endMerge() != nil; failed != (tc.fail != "" && n > int64(tc.ends)) {
				t.Fatalf("%s: after %d tiles: failed is %v", tc.name, n, failed)
			}
			if wrote := len(s.delta.dirty) < len(s.delta.mods); tc.fail != "" && n > int64(tc.ends) && wrote != (tc.fail == "merge") {
				t.Fatalf("%s: after %d tiles %d of %d modules are not in the journal", tc.name, n, len(s.delta.dirty), len(s.delta.mods))
			}
			s.damaged.Store(tc.fail == "journal" && n+int64(tc.ends) < tiles) // nothing is written then
			s.startMerge()
		}
		s.damaged.Store(false)
		if err := errors.Join(s.endMerge(), s.merge(), s.Verify()); err != nil {
			t.Fatal(err)
		}
		var dump bytes.Buffer
		if err := s.Dump(&dump); err != nil {
			t.Fatal(err)
		}
		stored, err := s.Events()
		if err != nil || len(stored) != events || events == 0 {
			t.Errorf("%s: %d events were told and %d stored, %v", tc.name, events, len(stored), err)
		}
		if want := allOf(t, tiles, tile); dump.String() != want {
			t.Errorf("%s: the index has %d bytes and differs from that of one merge with %d", tc.name, dump.Len(), len(want))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// allOf returns the dump of tiles that were merged at once.
func allOf(t *testing.T, tiles int64, tile func(int64) (*tlog.Tile, *tileRecs)) string {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "index.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range tiles {
		s.apply(tile(n))
	}
	var b bytes.Buffer
	if err := errors.Join(s.merge(), s.Dump(&b)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
