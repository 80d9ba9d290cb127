package index

import (
	"path/filepath"
	"testing"
	"time"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

// benchTiles returns n tiles from the middle of a large log.
func benchTiles(n int) []*tlog.Tile {
	var c logtest.Content
	var tiles []*tlog.Tile
	for k := range n {
		t := &tlog.Tile{First: 30_000_000 + int64(k)*256}
		for i := range int64(256) {
			t.Records = append(t.Records, c.Append(nil, t.First+i))
		}
		tiles = append(tiles, t)
	}
	return tiles
}

// BenchmarkParse and BenchmarkApply are the parts of indexing that are not
// hashing, for each record.
func BenchmarkParse(b *testing.B) {
	tiles := benchTiles(500)
	var recs tileRecs
	b.ResetTimer()
	for i := 0; i < b.N; i += 256 {
		prepare(tiles[i/256%len(tiles)], &recs)
	}
	if len(recs.bad) > 0 {
		b.Fatal("malformed records")
	}
}

func BenchmarkApply(b *testing.B) {
	tiles := benchTiles(2000)
	s, err := Open(filepath.Join(b.TempDir(), "index.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	parsed := make([]tileRecs, len(tiles))
	for k, t := range tiles {
		prepare(t, &parsed[k])
		s.apply(t, &parsed[k])
	}
	b.ResetTimer()
	for i := 0; i < b.N; i += 256 {
		k := i / 256 % len(tiles)
		t := tlog.Tile{First: 40_000_000 + int64(i), Records: tiles[k].Records}
		s.apply(&t, &parsed[k])
	}
}

func TestWorthShowing(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tc := range []struct {
		name    string
		logTime int64
		merged  time.Duration // ago
		took    time.Duration
		want    bool
	}{
		{"nearly current", now.Unix() - 3600, time.Minute, time.Second, true},
		{"just merged", now.Unix() - 3600, 10 * time.Second, time.Millisecond, false},
		{"merges take long", now.Unix() - 3600, time.Minute, 5 * time.Second, false},
		{"and it was long ago", now.Unix() - 3600, 101 * time.Second, 5 * time.Second, true},
		{"first sync", now.Unix() - 90*86400, time.Hour, time.Second, false},
		{"no time yet", 0, time.Hour, time.Second, false},
	} {
		if got := worthShowing(now, tc.logTime, now.Add(-tc.merged), tc.took); got != tc.want {
			t.Errorf("%s: %v; want %v", tc.name, got, tc.want)
		}
	}
}
