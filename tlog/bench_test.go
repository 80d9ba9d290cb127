//go:build unix

package tlog_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// hashTime returns the CPU time of hashing the records of the log, leaves and
// nodes, and nothing else. It measures some and multiplies.
func hashTime(b *testing.B, c *logtest.Content, size int64) time.Duration {
	const sample = 200_000
	var lengths []int
	var buf []byte
	for i := range min(sample, size) {
		buf = c.Append(buf[:0], i*size/min(sample, size))
		lengths = append(lengths, 1+len(buf))
	}
	leaf, node := make([]byte, 4096), make([]byte, 65)
	start := cpuTime(b)
	for _, n := range lengths {
		h := sha256.Sum256(leaf[:n])
		copy(node[1:], h[:])
		h = sha256.Sum256(node)
		copy(node[33:], h[:])
	}
	return time.Duration(float64(cpuTime(b)-start) * float64(size) / float64(len(lengths)))
}

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
	srv, err := logtest.NewServer("", content, size)
	if err != nil {
		b.Fatal(err)
	}
	tiles := b.TempDir()
	if err := srv.WriteTiles(tiles); err != nil {
		b.Fatal(err)
	}
	hashing := hashTime(b, &content, size)
	runtime.GC()
	b.ResetTimer()
	var cpu time.Duration
	for range b.N {
		dir := b.TempDir()
		td, err := tlog.OpenTileDir(tiles, nil)
		if err != nil {
			b.Fatal(err)
		}
		c, err := tlog.NewClient(tlog.ClientConfig{Key: srv.VerifierKey(), URL: "file://" + tiles, Dir: dir, Tiles: td})
		if err != nil {
			b.Fatal(err)
		}
		head, err := c.Update(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		start := cpuTime(b)
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
		cpu += cpuTime(b) - start
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
