//go:build unix

package tlog_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

// BenchmarkFollow follows a log from tiles on local disk into an index. Its
// limit is hashing: x-hash is the CPU time of all of it over that of hashing
// the same records. UPKEEP_BENCH_RECORDS sets the size of the log.
func BenchmarkFollow(b *testing.B) {
	size := int64(1_000_000)
	if s := os.Getenv("UPKEEP_BENCH_RECORDS"); s != "" {
		var err error
		if size, err = strconv.ParseInt(s, 10, 64); err != nil {
			b.Fatal(err)
		}
	}
	content := logtest.Content{}
	tiles := b.TempDir()
	key, err := logtest.WriteTiles(tiles, content, size)
	if err != nil {
		b.Fatal(err)
	}
	hashing := logtest.HashTime(&content, size)
	runtime.GC()
	b.ResetTimer()
	var cpu time.Duration
	for range b.N {
		dir := b.TempDir()
		td, err := tlog.OpenTileDir(tiles, nil)
		if err != nil {
			b.Fatal(err)
		}
		c, err := tlog.NewClient(tlog.ClientConfig{Key: key, URL: "file://" + tiles, Dir: dir, Tiles: td})
		if err != nil {
			b.Fatal(err)
		}
		head, err := c.Update(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		start := logtest.CPUTime()
		s, err := index.Open(filepath.Join(dir, "index.db"), index.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Follow(b.Context(), c, head, 0, nil); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		cpu += logtest.CPUTime() - start
		b.StopTimer()
		if fi, err := os.Stat(filepath.Join(dir, "index.db")); err == nil {
			b.ReportMetric(float64(fi.Size())/1e6, "store-MB")
		}
		os.RemoveAll(dir)
		b.StartTimer()
	}
	n := float64(size) * float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(cpu)/n, "cpu-ns/record")
	b.ReportMetric(float64(hashing)/float64(size), "hash-ns/record")
	b.ReportMetric(float64(cpu)/float64(hashing)/float64(b.N), "x-hash")
}
