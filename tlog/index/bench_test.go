//go:build unix

package index_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

// BenchmarkQuery asks for random modules; the limit for one is 5 µs at the
// median. UPKEEP_BENCH_INDEX names an index file to ask, else a small one is made.
func BenchmarkQuery(b *testing.B) {
	file := os.Getenv("UPKEEP_BENCH_INDEX")
	if file == "" {
		srv, url := serve(b, logtest.Content{}, 200_000)
		file = filepath.Join(b.TempDir(), "index.db")
		s := open(b, file, index.Options{})
		follow(b, s, client(b, srv, url))
		s.Close()
	}
	s := open(b, file, index.Options{ReadOnly: true})
	paths := somePaths(b, s, 100_000)
	for _, p := range paths {
		if _, ok, err := s.Module(p); err != nil || !ok {
			b.Fatal(p, err)
		}
	}
	times := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		if _, ok, err := s.Module(paths[i%len(paths)]); err != nil || !ok {
			b.Fatal(err)
		}
		if len(times) < cap(times) {
			times = append(times, time.Since(start))
		}
	}
	b.StopTimer()
	slices.Sort(times)
	p50 := times[len(times)/2]
	b.ReportMetric(float64(p50), "p50-ns")
	b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns")
	b.ReportMetric(float64(p50)/5000, "x-limit")
}

// somePaths returns random module paths of the index.
func somePaths(tb testing.TB, s *index.Store, n int) []string {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = s.Dump(w)
		w.Close()
	}()
	var paths []string
	seen := 0
	last := ""
	for sc := bufio.NewScanner(r); sc.Scan(); {
		path, _, _ := strings.Cut(sc.Text(), " ")
		if !strings.Contains(path, "/") || path == last {
			continue
		}
		last = path
		if seen++; len(paths) < n {
			paths = append(paths, path)
		} else if k := rand.IntN(seen); k < n {
			paths[k] = path
		}
	}
	rand.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	return paths
}

// TestFullSize makes logs of the sizes in UPKEEP_TEST_RECORDS (for example
// "1000000,72000000") as tiles in UPKEEP_TEST_DIR, about 190 bytes a record,
// follows each in a process of its own, and prints the table of docs/log.md.
func TestFullSize(t *testing.T) {
	sizes := os.Getenv("UPKEEP_TEST_RECORDS")
	if sizes == "" {
		t.Skip("set UPKEEP_TEST_RECORDS and UPKEEP_TEST_DIR to measure; it takes minutes and 200 bytes of disk a record")
	}
	fmt.Println("| records | modules | wall s | CPU s | hashing s | x-hash | wall ÷ (CPU ÷ cores) | peak MiB | store MB | open+query ms | serving MiB | p50 µs | p99 µs |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for f := range strings.SplitSeq(sizes, ",") {
		size, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		fullSize(t, size, filepath.Join(os.Getenv("UPKEEP_TEST_DIR"), "log-"+f))
	}
}

func fullSize(t *testing.T, size int64, dir string) {
	c := logtest.Content{}
	tiles := filepath.Join(dir, "tiles")
	// A folder of tiles made before, with its key in the file "key", is used again and stays.
	made, err := os.ReadFile(filepath.Join(dir, "key"))
	key := string(made)
	if err != nil {
		defer os.RemoveAll(dir)
		if key, err = logtest.WriteTiles(tiles, c, size); err != nil {
			t.Fatal(err)
		}
		syscall.Sync()
	}
	j := crashJob{Key: key, URL: "file://" + tiles, Dir: dir, Plain: true}
	wall, f := child(t, j)
	cpu := f.UserTime() + f.SystemTime()
	peak := f.SysUsage().(*syscall.Rusage).Maxrss / 1024
	fi, err := os.Stat(filepath.Join(dir, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	j.Serve = filepath.Join(dir, "serve.json")
	_, g := child(t, j)
	var r serveResult
	b, err := os.ReadFile(j.Serve)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	hashing := logtest.HashTime(&c, size)
	fmt.Printf("| %d | %d | %.1f | %.1f | %.1f | %.2f | %.2f | %d | %.0f | %.0f | %d | %.1f | %.1f |\n", size, r.Modules, wall.Seconds(), cpu.Seconds(), hashing.Seconds(),
		cpu.Seconds()/hashing.Seconds(), wall.Seconds()/(cpu.Seconds()/float64(cores())), peak, float64(fi.Size())/1e6, r.FirstMS,
		g.SysUsage().(*syscall.Rusage).Maxrss/1024, r.P50/1000, r.P99/1000)
}

func cores() int { return runtime.GOMAXPROCS(0) }

func child(t *testing.T, j crashJob) (time.Duration, *os.ProcessState) {
	t.Helper()
	env, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+string(env))
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return time.Since(start), cmd.ProcessState
}

func init() { serveJob = serveChild }

type serveResult struct {
	Modules           int64
	FirstMS, P50, P99 float64
}

// serveChild opens an index, asks a million random questions and writes how it went.
func serveChild(j crashJob) error {
	// The names come from the content, so that nothing is read before the first query.
	c := logtest.Content{}
	start := time.Now()
	s, err := index.Open(filepath.Join(j.Dir, "index.db"), index.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	if _, _, err := s.Module("github.com/some/module"); err != nil {
		return err
	}
	r := serveResult{FirstMS: float64(time.Since(start).Microseconds()) / 1000}
	head, err := s.Head()
	if err != nil {
		return err
	}
	const n = 300_000
	times := make([]time.Duration, 0, n)
	var b []byte
	for range 2 { // the first round warms
		times = times[:0]
		for k := range int64(n) {
			b = c.AppendVersion(b[:0], k*7919%head.Size)
			path, _, _ := strings.Cut(string(b), " ")
			start := time.Now()
			if _, ok, err := s.Module(path); err != nil || !ok {
				return fmt.Errorf("%s: %v, %w", path, ok, err)
			}
			times = append(times, time.Since(start))
		}
	}
	slices.Sort(times)
	r.P50, r.P99 = float64(times[n/2]), float64(times[n*99/100])
	if r.Modules, err = s.Count(context.Background()); err != nil {
		return err
	}
	out, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(j.Serve, out, 0o644)
}
