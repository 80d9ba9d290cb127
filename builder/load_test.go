//go:build linux

package builder

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// BenchmarkLogHTTP measures how many requests for the log a server of its own
// answers in one second of its processor time, over loopback: with 20 records,
// and with 1,000,000 when UPKEEP_BENCH_LARGE=1. It also reports the memory of
// the server before and after.
func BenchmarkLogHTTP(b *testing.B) {
	if dir := os.Getenv("UPKEEP_TEST_KILL_DIR"); dir != "" {
		killedServer(b, dir)
		return
	}
	sizes := []int{20}
	if os.Getenv("UPKEEP_BENCH_LARGE") == "1" {
		sizes = append(sizes, 1_000_000)
	}
	for _, size := range sizes {
		dir, signer, verifier := benchLog(b, size)
		cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkLogHTTP$", "-test.benchtime=1x")
		cmd.Env = append(os.Environ(), "UPKEEP_TEST_KILL_DIR="+dir, "UPKEEP_TEST_KILL_KEY="+signer,
			"UPKEEP_TEST_KILL_PROXY=http://127.0.0.1:1", "UPKEEP_TEST_KILL_DB="+verifier)
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		addr := ""
		for sc := bufio.NewScanner(out); addr == "" && sc.Scan(); {
			_, addr, _ = strings.Cut(sc.Text(), "http://")
		}
		go io.Copy(io.Discard, out)
		for _, kind := range []struct {
			name, path string
			limit      float64 // requests per processor second to reach
		}{
			{"latest", "/tlog/latest", 15_000},
			{"tile", "/tlog/tile/8/0/000", 15_000},
			{"anytile", "/tlog/tile/8/0/", 15_000},
			{"lookup", "/tlog/lookup/", 10_000},
		} {
			path := kind.path
			if size < 256 && kind.name == "tile" {
				path += ".p/20"
			}
			if size < 256 && kind.name == "anytile" {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", kind.name, size), func(b *testing.B) {
				before := cpuTicks(b, cmd.Process.Pid)
				var wg sync.WaitGroup
				const conns = 8
				for c := range conns {
					wg.Go(func() { hammer(b, addr, path, size, b.N/conns+min(1, max(0, b.N%conns-c))) })
				}
				wg.Wait()
				seconds := float64(cpuTicks(b, cmd.Process.Pid)-before) / 100
				if seconds > 0 {
					b.ReportMetric(float64(b.N)/seconds, "req/CPU-s")
					b.ReportMetric(float64(b.N)/seconds/kind.limit, "of-limit")
				}
				b.ReportMetric(rss(b, cmd.Process.Pid), "RSS-MiB")
			})
		}
	}
}

// benchLog returns a log of so many records in the folder of a service. With
// UPKEEP_BENCH_LOG it stays there for the next run, with its key in the file key.
func benchLog(b *testing.B, size int) (dir, signer, verifier string) {
	b.Helper()
	keep := os.Getenv("UPKEEP_BENCH_LOG")
	if keep == "" {
		var err error
		if keep, err = os.MkdirTemp("", "upkeep-log-bench-"); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(keep) })
	}
	dir = filepath.Join(keep, strconv.Itoa(size))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(keep, "key"))
	if errors.Is(err, fs.ErrNotExist) {
		if signer, _, err = tlog.GenerateKey("build.test"); err == nil {
			data = []byte(signer)
			err = os.WriteFile(filepath.Join(keep, "key"), data, 0o600)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	signer = string(data)
	l, err := tlog.OpenLog(filepath.Join(dir, "log"), signer, tlog.LogOptions{})
	if err != nil {
		b.Fatal(err)
	}
	have, verifier := l.Head().Size, l.VerifierKey()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	if have == 0 {
		fillLog(b, filepath.Join(dir, "log"), signer, size)
	}
	return dir, signer, verifier
}

func benchSpec(i int) spec.Spec {
	return spec.Spec{Module: fmt.Sprintf("example.org/module%d", i), Version: "v1.0.0", Dir: "cmd/x", GOOS: "linux", GOARCH: "amd64", GoVersion: "go1.26.8"}
}

func fillLog(b *testing.B, dir, signer string, n int) {
	l, err := tlog.OpenLog(dir, signer, tlog.LogOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	const batch = 10_000
	for i := 0; i < n; i += batch {
		var entries []tlog.Entry
		for k := i; k < min(n, i+batch); k++ {
			s := benchSpec(k)
			rec := spec.Record{Spec: s, Size: 1000, Sum: spec.Sum(sha256.Sum256([]byte(s.String())))}
			entries = append(entries, tlog.Entry{Key: s.String(), Text: rec.Line()})
		}
		if _, err := l.Append(b.Context(), entries...); err != nil {
			b.Fatal(err)
		}
	}
}

// hammer sends n requests over one connection, one after the other.
func hammer(b *testing.B, addr, path string, size, n int) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range n {
		p := path
		if strings.HasSuffix(p, "lookup/") {
			p += benchSpec(rand.IntN(size)).String()
		}
		if strings.HasSuffix(p, "/0/") { // any full tile, most of them not in the server's memory
			n := rand.IntN(size >> 8)
			p += fmt.Sprintf("x%03d/%03d", n/1000, n%1000)
			if n < 1000 {
				p = path + fmt.Sprintf("%03d", n)
			}
		}
		if _, err := io.WriteString(conn, "GET "+p+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			b.Error(err)
			return
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			b.Errorf("%s: %d, %v", p, resp.StatusCode, err)
			return
		}
	}
}

// cpuTicks returns the processor time of a process, in hundredths of a second.
func cpuTicks(b *testing.B, pid int) int {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		b.Fatal(err1, err2)
	}
	return user + system
}

func rss(b *testing.B, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	return 0
}
