package builder

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/tlog"
)

// While the proxy is down a build fails for a moment only.
func TestProxyDown(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{})
	sp := "example.org/hello@v1.0.0/" + target() + "/"
	e.setBroken(func(p string) int {
		if strings.HasSuffix(p, ".zip") {
			return 503
		}
		return 0
	})
	names, events := ts.readEvents(t, sp)
	last := events[len(events)-1]
	if last.Kind != "TempFailed" || last.Error == "" || names[len(names)-1] != "update" {
		t.Fatalf("events %+v", events)
	}
	retries := 0
	for _, ev := range events {
		if strings.HasPrefix(ev.Line, "Trying again in ") {
			retries++
		}
	}
	if retries != ts.cfg.Tries-1 {
		t.Errorf("%d retries instead of %d: %+v", retries, ts.cfg.Tries-1, events)
	}
	if resp, _ := ts.get(t, "GET", "/tlog/lookup/"+sp); resp.StatusCode != 500 {
		t.Errorf("while down: %d", resp.StatusCode)
	}
	e.setBroken(nil)
	ts.get(t, "POST", "/"+sp+"retry")
	if _, err := ts.lookup(t, sp); err != nil {
		t.Errorf("when it is up again: %v", err)
	}
}

// A build goes on by itself when the proxy comes back between two tries.
func TestRetry(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{})
	var mu sync.Mutex
	left := 2
	e.setBroken(func(p string) int {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasSuffix(p, ".info") && left > 0 {
			left--
			return 502
		}
		return 0
	})
	if _, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/"); err != nil {
		t.Error(err)
	}
}

// A proxy that serves other bytes than the database records is found out, for
// the module and for what it needs, and nothing is logged.
func TestProxyLies(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	other := newEcosystem(t)
	other.publish("example.org/hello", "v1.0.0", strings.Replace(helloSource, "dep.Text", "dep.Text, 666", 1))
	other.publish("example.org/dep", "v1.0.0", "-- dep.go --\npackage dep\n\nconst Text = \"evil\"\n")
	hello, dep := "/example.org/hello/@v/v1.0.0", "/example.org/dep/@v/v1.0.0"
	sp := "example.org/hello@v1.0.0/" + target() + "/"
	for _, tc := range []struct {
		name, path string
		data       []byte
	}{
		{"zip", hello + ".zip", other.files[hello+".zip"]},
		{"zip of a dependency", dep + ".zip", other.files[dep+".zip"]},
		{"go.mod", hello + ".mod", []byte("module example.org/hello\n\ngo 1.21\n")},
		{"go.mod of a dependency", dep + ".mod", []byte("module example.org/dep\n\ngo 1.20\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			true_ := e.files[tc.path]
			e.set(tc.path, tc.data)
			defer e.set(tc.path, true_)
			ts := start(t, e, testOptions{})
			resp, body := ts.get(t, "GET", "/tlog/lookup/"+sp)
			if resp.StatusCode != 500 || !strings.Contains(string(body), "checksum database records") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			st := ts.Status(t.Context())
			if st.LogSize != 0 || len(st.Alarms) == 0 || st.Alarms[0].Kind != "hash_mismatch" {
				t.Errorf("%d records, alarms %+v", st.LogSize, st.Alarms)
			}
			if s, _ := spec.Parse(sp); func() bool { _, kept, _ := ts.results.load(s); return kept }() {
				t.Error("the lie is remembered as the module's fault")
			}
			e.set(tc.path, true_)
			ts.get(t, "POST", "/"+sp+"retry")
			if _, err := ts.lookup(t, sp); err != nil {
				t.Errorf("when it is honest again: %v", err)
			}
		})
	}
}

// A checksum database that signs with another key stops everything before the
// first download.
func TestWrongDatabaseKey(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	_, otherKey, err := tlog.GenerateKey("sum.test")
	if err != nil {
		t.Fatal(err)
	}
	db, err := tlog.NewClient(tlog.ClientConfig{Key: otherKey, URL: e.url + "/sumdb/sum.test", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ts := start(t, e, testOptions{})
	src := source.Source{Proxy: ts.src.Proxy, DB: db}
	if _, err := src.Zip(t.Context(), module.Version{Path: "example.org/hello", Version: "v1.0.0"}, filepath.Join(t.TempDir(), "zip"), 1<<20, nil); !errors.Is(err, tlog.ErrSignature) {
		t.Errorf("error %v", err)
	}
	if n := e.asked["/example.org/hello/@v/v1.0.0.zip"]; n != 0 {
		t.Errorf("the zip was downloaded %d times", n)
	}
}

// Files of the module cache that were changed on disk do not reach a record.
func TestDamagedModCache(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{})
	if _, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(ts.modCache, "example.org/dep@v1.0.0/dep.go")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("package dep\n\nconst Text = \"evil\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sp := "example.org/hello@v1.0.1/" + target() + "/"
	// The first try finds the damage and removes it, the second succeeds.
	rec, err := ts.lookup(t, sp)
	if err != nil {
		t.Fatal(err)
	}
	want := spec.NewDigest()
	want.Write(e.plainInstall("example.org/hello@v1.0.1", rec.GOOS, rec.GOARCH, "-buildid="))
	if rec.Sum != want.Sum() {
		t.Error("the changed file is in the binary")
	}
	if st := ts.Status(t.Context()); len(st.Alarms) == 0 {
		t.Error("no alarm")
	}
}

// 200 requests for 10 builds: each is built once, all are answered.
func TestManyRequests(t *testing.T) {
	e := newEcosystem(t)
	for i := range 10 {
		e.publish(fmt.Sprintf("example.org/many%d", i), "v1.0.0", fmt.Sprintf("-- main.go --\npackage main\n\nfunc main() { println(%d) }\n", i))
	}
	ts := start(t, e, testOptions{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for i := range 200 {
		wg.Go(func() {
			resp, err := http.Get(fmt.Sprintf("%s/tlog/lookup/example.org/many%d@v1.0.0/%s/", ts.url, i%10, target()))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			io.Copy(io.Discard, resp.Body)
			mu.Lock()
			defer mu.Unlock()
			got[resp.StatusCode]++
		})
	}
	wg.Wait()
	if got[200] != 200 {
		t.Errorf("statuses %v", got)
	}
	if n := ts.log.Head().Size; n != 10 {
		t.Errorf("%d records", n)
	}
	for path, n := range e.asked {
		if strings.HasPrefix(path, "/example.org/many") && strings.HasSuffix(path, ".info") && n > 2 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
}

// A build that nobody waits for is cancelled.
func TestAbandoned(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	hold := make(chan struct{})
	var once sync.Once
	arrived := make(chan struct{})
	e.setBroken(func(p string) int {
		if strings.HasSuffix(p, ".info") {
			once.Do(func() { close(arrived) })
		}
		return 0
	})
	e.hold = hold
	defer close(hold)
	ts := start(t, e, testOptions{change: func(c *Config) { c.Abandon = config.Duration(50 * time.Millisecond) }})
	s, err := spec.Parse("example.org/hello@v1.0.0/" + target() + "/")
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", ts.url+"/"+s.String()+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	j := ts.queue.join(s)
	if j == nil {
		t.Fatal("no job")
	}
	ts.queue.leave(j)
	resp.Body.Close()
	for {
		_, _, _, done, change := ts.queue.snapshot(j, 0)
		if done {
			break
		}
		select {
		case <-change:
		case <-t.Context().Done():
			t.Fatal("it goes on")
		}
	}
	if j.res.State != StateTempFailed {
		t.Errorf("result %+v", j.res)
	}
}

// What was queued when the server stopped is built after the next start,
// though nobody asks again.
func TestQueueGoesOn(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.setBroken(func(string) int { return 503 })
	ts := start(t, e, testOptions{change: func(c *Config) {
		c.Drain, c.Backoff = config.Duration(0), config.Duration(time.Hour)
	}})
	var specs []spec.Spec
	for _, v := range []string{"v1.0.0", "v1.0.1"} {
		s, err := spec.Parse("example.org/hello@" + v + "/" + target() + "/")
		if err != nil {
			t.Fatal(err)
		}
		j, err := ts.queue.add(s, "192.0.2.0/24")
		if err != nil {
			t.Fatal(err)
		}
		// Its first try has failed, the second is an hour away.
		for {
			_, _, out, _, change := ts.queue.snapshot(j, 0)
			if slices.Contains(out, "Trying again in 1h0m0s.") {
				break
			}
			<-change
		}
		specs = append(specs, s)
	}
	ts.stop()
	e.setBroken(nil)
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key})
	for _, s := range specs {
		j := ts.queue.join(s)
		if j == nil { // built already
			if res, err := ts.Result(s); err != nil || res.State != StateSuccess {
				t.Errorf("%s: %+v, %v", s, res, err)
			}
			continue
		}
		for {
			_, _, _, done, change := ts.queue.snapshot(j, 0)
			if done {
				break
			}
			<-change
		}
		if j.res.State != StateSuccess {
			t.Errorf("%s: %+v", s, j.res)
		}
	}
}

// No build starts on a disk that is nearly full, and none is remembered as failed.
func TestDiskFull(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.DiskFree = 1 << 40 }})
	sp := "example.org/hello@v1.0.0/" + target() + "/"
	if resp, body := ts.get(t, "GET", "/tlog/lookup/"+sp); resp.StatusCode != 500 || !strings.Contains(string(body), "disk space") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	ts.stop()
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key})
	if _, err := ts.lookup(t, sp); err != nil {
		t.Error(err)
	}
}

// Verifiers decide what is logged.
func TestVerifiers(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	other := start(t, e, testOptions{})
	sp := "example.org/hello@v1.0.0/" + target() + "/"
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	good := Verifier{Key: other.log.VerifierKey(), URL: other.url + "/tlog"}
	dead := Verifier{Key: newKey(t, "dead.test"), URL: down.URL}

	// A liar has another sum in a log of its own.
	liarKey, liarVerifier, err := tlog.GenerateKey("liar.test")
	if err != nil {
		t.Fatal(err)
	}
	liarLog, err := tlog.OpenLog(t.TempDir(), liarKey, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer liarLog.Close()
	s, err := spec.Parse(sp)
	if err != nil {
		t.Fatal(err)
	}
	lie := spec.Record{Spec: s, Size: 1, Sum: "0AAECAwQFBgcICQoLDA0ODxAREhM"}
	if _, err := liarLog.Append(t.Context(), tlog.Entry{Key: sp, Text: lie.Line()}); err != nil {
		t.Fatal(err)
	}
	liarServer := httptest.NewServer(http.StripPrefix("/tlog", liarLog.Handler(nil)))
	defer liarServer.Close()
	liar := Verifier{Key: liarVerifier, URL: liarServer.URL + "/tlog"}

	for _, tc := range []struct {
		name      string
		verifiers []Verifier
		require   int
		ok        bool
		alarm     bool
	}{
		{"agrees", []Verifier{good}, 1, true, false},
		{"down", []Verifier{dead}, 1, false, false},
		{"one of two is down", []Verifier{dead, good}, 1, true, false},
		{"two needed, one down", []Verifier{dead, good}, 2, false, false},
		{"lies", []Verifier{liar}, 1, false, true},
		{"two needed, one lies", []Verifier{liar, good}, 2, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ts := start(t, e, testOptions{change: func(c *Config) { c.Verifiers, c.Require, c.Tries = tc.verifiers, tc.require, 1 }})
			resp, body := ts.get(t, "GET", "/tlog/lookup/"+sp)
			if ok := resp.StatusCode == 200; ok != tc.ok {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			if !tc.ok && (resp.StatusCode != 500 || ts.log.Head().Size != 0) {
				t.Errorf("status %d, %d records", resp.StatusCode, ts.log.Head().Size)
			}
			st := ts.Status(t.Context())
			kept, _ := filepath.Glob(filepath.Join(ts.dir, "mismatches", "*.json"))
			if alarm := len(st.Alarms) > 0; alarm != tc.alarm || (len(kept) > 0) != tc.alarm {
				t.Errorf("alarms %v, kept %v", st.Alarms, kept)
			}
		})
	}
}

func newKey(t testing.TB, name string) string {
	t.Helper()
	_, verifier, err := tlog.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

// SIGKILL at any time loses nothing that was answered, and what was asked for
// goes on at the next start.
func TestKill(t *testing.T) {
	if dir := os.Getenv("UPKEEP_TEST_KILL_DIR"); dir != "" {
		killedServer(t, dir)
		return
	}
	e := newEcosystem(t)
	for i := range 4 {
		e.publish(fmt.Sprintf("example.org/kill%d", i), "v1.0.0", fmt.Sprintf("-- main.go --\npackage main\n\nfunc main() { println(%d) }\n", i))
	}
	// Compiles the standard library before the clock of the kills runs.
	warm := start(t, e, testOptions{})
	if _, err := warm.lookup(t, "example.org/kill0@v1.0.0/"+target()+"/"); err != nil {
		t.Fatal(err)
	}
	warm.stop()

	dir, err := os.MkdirTemp(sharedDir, "kill-")
	if err != nil {
		t.Fatal(err)
	}
	signer, verifier, err := tlog.GenerateKey("build.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(sharedDir, "std-false"), filepath.Join(dir, "std")); err != nil {
		t.Fatal(err)
	}
	startServer := func() (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "UPKEEP_TEST_KILL_DIR="+dir, "UPKEEP_TEST_KILL_KEY="+signer,
			"UPKEEP_TEST_KILL_PROXY="+e.url, "UPKEEP_TEST_KILL_DB="+e.key)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 200)
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("the server does not start: %v", err)
		}
		go io.Copy(io.Discard, out)
		return cmd, strings.TrimSpace(string(buf[:n]))
	}
	// The client keeps its tree head: a record that was taken back is a fork.
	clientDir := t.TempDir()
	answered := map[string]string{}
	for round := range 6 {
		cmd, url := startServer()
		client, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: url + "/tlog", Dir: clientDir})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range 4 {
			wg.Go(func() {
				sp := fmt.Sprintf("example.org/kill%d@v1.0.0/%s/", i, target())
				rec, err := client.Lookup(t.Context(), sp)
				var fork *tlog.ForkError
				if errors.As(err, &fork) || errors.Is(err, tlog.ErrStale) || errors.Is(err, tlog.ErrInconsistent) {
					t.Errorf("round %d: %v", round, err)
				}
				if err != nil {
					return // killed meanwhile
				}
				mu.Lock()
				defer mu.Unlock()
				line := fmt.Sprintf("%d %s", rec.ID, rec.Data)
				if old, ok := answered[sp]; ok && old != line {
					t.Errorf("round %d: %s was %q and is %q", round, sp, old, line)
				}
				answered[sp] = line
			})
		}
		if round < 5 {
			time.Sleep(time.Duration(50+rand.IntN(1200)) * time.Millisecond)
			cmd.Process.Kill()
		}
		wg.Wait()
		cmd.Process.Kill()
		cmd.Wait()
	}
	if len(answered) != 4 {
		t.Errorf("%d of 4 were answered in the end", len(answered))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "queue", "*")); len(left) > 0 {
		t.Errorf("the queue still holds %v", left)
	}
}

// killedServer is the process that TestKill kills.
func killedServer(t testing.TB, dir string) {
	e := &ecosystem{t: t, url: os.Getenv("UPKEEP_TEST_KILL_PROXY"), key: os.Getenv("UPKEEP_TEST_KILL_DB")}
	ts := start(t, e, testOptions{dir: dir, key: os.Getenv("UPKEEP_TEST_KILL_KEY")})
	fmt.Println(ts.url)
	select {}
}

// Hostile modules end as failures, in bounded time and space, and leave the
// service as it was.
func TestHostile(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	main := "-- main.go --\npackage main\n\nfunc main() {}\n"
	e.publish("example.org/embedname", "v1.0.0", "-- main.go --\npackage main\n\nimport _ \"embed\"\n\n//go:embed \"../../../../../../etc/passwd\"\nvar s string\n\nfunc main() { println(s) }\n")
	e.publish("example.org/huge", "v1.0.0", "-- main.go --\npackage main\n\nvar a [1 << 40]byte\n\nfunc main() { println(len(a), a[1]) }\n")
	e.publish("example.org/bigbinary", "v1.0.0", "-- main.go --\npackage main\n\nvar a = [8 << 20]byte{1: 1}\n\nfunc main() { println(a[len(a)-1]) }\n")
	e.publish("example.org/deep", "v1.0.0", "-- main.go --\npackage main\n\nvar x = "+strings.Repeat("(", 20000)+"1"+strings.Repeat(")", 20000)+"\n\nfunc main() { println(x) }\n")
	e.publish("example.org/cflags", "v1.0.0", "-- main.go --\npackage main\n\n// #cgo LDFLAGS: -Wl,-rpath,/tmp\n// int x;\nimport \"C\"\n\nfunc main() { println(C.x) }\n")
	e.publish("example.org/generate", "v1.0.0", "-- main.go --\npackage main\n\n//go:generate touch /tmp/upkeep-generated\n\nfunc main() {}\n")
	e.publish("example.org/toolchain", "v1.0.0", main+"-- go.mod --\nmodule example.org/toolchain\n\ngo 1.21\n\ntoolchain go1.999.0\n")
	e.publish("example.org/vendored", "v1.0.0", main+"-- go.mod --\nmodule example.org/vendored\n\ngo 1.21\n-- go.work --\ngo 1.21\n\nuse ./nothing\n")
	var many strings.Builder
	many.WriteString("-- main.go --\npackage main\n\nfunc main() {}\n")
	for i := range 2000 {
		fmt.Fprintf(&many, "-- p%d/p.go --\npackage p\n", i)
	}
	e.publish("example.org/manypackages", "v1.0.0", many.String())
	// Control characters in what the compiler says.
	e.publish("example.org/control", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() { x := \"\\x1b[31m\" + 1\u2028 }\n//line \x1b]0;title\x07:1\nvar y = z\n")
	// A zip that the checksum database knows, but that is none of a module.
	m := module.Version{Path: "example.org/badzip", Version: "v1.0.0"}
	e.publishZip(m, []byte("module example.org/badzip\n"), zipOf(t, map[string]string{"example.org/badzip@v1.0.0/main.go": "package main\n\nfunc main() {}\n", "../../escape": "x"}))

	ts := start(t, e, testOptions{confined: os.Getenv("UPKEEP_TEST_FULL") == "1", change: func(c *Config) {
		c.CompileTimeout, c.MaxBinary, c.Memory, c.Tries = config.Duration(60*time.Second), 4, 1024, 1
	}})
	for _, tc := range []struct {
		module string
		ok     bool
		status []int
	}{
		{"embedname", false, []int{500}},
		{"huge", false, []int{500}},
		{"bigbinary", false, []int{500}},
		{"deep", true, []int{200, 500}},
		{"cflags", false, []int{404}},
		{"generate", true, []int{200}},
		{"toolchain", true, []int{200}},
		{"vendored", true, []int{200}},
		{"manypackages", true, []int{200}},
		{"control", false, []int{500}},
		{"badzip", false, []int{500}},
	} {
		start := time.Now()
		resp, body := ts.get(t, "GET", "/tlog/lookup/example.org/"+tc.module+"@v1.0.0/"+target()+"/")
		if !slices.Contains(tc.status, resp.StatusCode) {
			t.Errorf("%s: %d %.300s", tc.module, resp.StatusCode, body)
		}
		for _, c := range body {
			if c < ' ' && c != '\n' && resp.StatusCode != 200 {
				t.Errorf("%s: control character in %q", tc.module, body)
				break
			}
		}
		if d := time.Since(start); d > 50*time.Second {
			t.Errorf("%s took %v", tc.module, d)
		}
	}
	if _, err := os.Stat("/tmp/upkeep-generated"); err == nil {
		t.Error("go generate ran")
	}
	if left, _ := filepath.Glob(filepath.Join(ts.workDir, "build-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/"); err != nil {
		t.Errorf("after all that: %v", err)
	}
}
