package builder

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
)

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
			await(t, "the first try fails", change)
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
			await(t, "the queue goes on", change)
		}
		if j.res.State != StateSuccess {
			t.Errorf("%s: %+v", s, j.res)
		}
	}
}

func TestFits(t *testing.T) {
	for _, tc := range []struct {
		running, parallel int64
		large, want       bool
	}{
		{0, 1, false, true}, {0, 1, true, true}, {1, 1, false, false}, {1, 1, true, false},
		{0, 3, true, true}, {1, 3, true, false}, {2, 3, false, true}, {3, 3, false, false},
	} {
		if got := fits(tc.running, tc.parallel, tc.large); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
	// Whatever runs at the same time, its limits together are no more than all.
	for _, parallel := range []int{1, 2, 3, 7} {
		for _, memory := range []int{0, 64, 1 << 20} {
			s := &Service{cfg: Config{Parallel: parallel, Memory: memory}}
			all := machineMemory() / 10 * 8
			if sum := s.memory(false) * int64(parallel); sum > all || s.memory(true) > all || s.memory(false) > s.memory(true) {
				t.Errorf("%d builds with %d MiB: %d, a large one %d, of %d", parallel, memory, sum, s.memory(true), all)
			}
		}
	}
}

// Compilers may take memory for time where there is enough of it for as many as
// run at once, once.
func TestCollector(t *testing.T) {
	for _, tc := range []struct {
		memory     int64
		processors int
		again      bool
		want       []string
	}{
		{8 << 30, 3, false, []string{"GOGC=off", "GOMEMLIMIT=2147483648"}},
		{8 << 30, 3, true, nil},
		{2 << 30, 3, false, nil},
		{8 << 30, 15, false, nil},
	} {
		if got := collector(tc.memory, tc.processors, tc.again); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %q", tc, got)
		}
	}
}

// Builds that need all memory run one at a time, and nothing beside them.
func TestLargeRunAlone(t *testing.T) {
	e := newEcosystem(t)
	hold := make(chan struct{})
	e.hold = hold
	var once sync.Once
	release := func() { once.Do(func() { close(hold) }) }
	defer release()
	ts := start(t, e, testOptions{change: func(c *Config) { c.Parallel, c.Abandon = 3, config.Duration(time.Hour) }})
	var jobs []*job
	ts.queue.mu.Lock() // all at once, so that none starts before it is known to be large
	for i, large := range []bool{true, true, false, false} {
		sp, err := spec.Parse(fmt.Sprintf("example.org/none%d@v1.0.0/%s/", i, target()))
		if err != nil {
			t.Fatal(err)
		}
		ts.queue.seq++
		j := &job{spec: sp, client: "192.0.2.0/24", seq: ts.queue.seq, state: StateQueued, large: large, waiters: 1, change: make(chan struct{})}
		ts.queue.jobs[sp] = j
		jobs = append(jobs, j)
	}
	ts.queue.update()
	ts.queue.mu.Unlock()
	alone := func() {
		t.Helper()
		building, _ := ts.queue.list()
		large := false
		for _, b := range building {
			large = large || b.Spec == jobs[0].spec || b.Spec == jobs[1].spec
		}
		if large && len(building) > 1 {
			t.Errorf("beside a large build: %v", building)
		}
	}
	for { // the first runs, and waits for the proxy
		state, _, _, _, change := ts.queue.snapshot(jobs[0], 0)
		if state == StateBuilding {
			break
		}
		await(t, "the first is built", change)
	}
	for range 100 { // whatever makes the service look at its queue
		ts.queue.mu.Lock()
		ts.queue.poke()
		ts.queue.mu.Unlock()
		alone()
		time.Sleep(time.Millisecond)
	}
	release()
	for _, j := range jobs {
		for {
			_, _, _, done, change := ts.queue.snapshot(j, 0)
			alone()
			if done {
				break
			}
			await(t, "all are built", change)
		}
		if j.res.State != StateFailed {
			t.Errorf("%+v", j.res)
		}
	}
}

// SIGKILL at every stage of a build loses nothing that was answered, and what
// was asked for goes on at the next start.
func TestKill(t *testing.T) {
	if dir := os.Getenv("UPKEEP_TEST_KILL_DIR"); dir != "" {
		killedServer(t, dir)
		return
	}
	dir, err := os.MkdirTemp(sharedDir, "kill-")
	if err != nil {
		t.Fatal(err)
	}
	// When the server is killed: at a line of the build's output, or when a file
	// is there. The last round goes to its end.
	line := func(prefix string) func(*killedBuild) { return func(b *killedBuild) { b.untilLine(prefix) } }
	file := func(pattern string) func(*killedBuild) {
		return func(b *killedBuild) { b.untilFile(filepath.Join(dir, filepath.FromSlash(pattern))) }
	}
	stages := []func(*killedBuild){
		file("queue/*.json"), line("Checking"), line("Fetching"), line("Compiling."),
		file("work/build-*/gopath/bin/*"), file("blobs/new/*"), file("blobs/??/*"), file("log/records"), file("results/??/*.json"),
	}
	e := newEcosystem(t)
	for i := range stages {
		e.publish(fmt.Sprintf("example.org/kill%d", i), "v1.0.0", fmt.Sprintf("-- main.go --\npackage main\n\nfunc main() { println(%d) }\n", i))
	}
	// Compiles the standard library once.
	warm := start(t, e, testOptions{})
	if _, err := warm.lookup(t, "example.org/kill0@v1.0.0/"+target()+"/"); err != nil {
		t.Fatal(err)
	}
	warm.stop()

	signer, verifier, err := tlog.GenerateKey("build.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(sharedDir, "std-false"), filepath.Join(dir, "std")); err != nil {
		t.Fatal(err)
	}
	startServer := func() (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "TMPDIR="+sharedDir, "UPKEEP_TEST_KILL_DIR="+dir, "UPKEEP_TEST_KILL_KEY="+signer,
			"UPKEEP_TEST_KILL_PROXY="+e.url, "UPKEEP_TEST_KILL_DB="+e.key)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		endless := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		sc := bufio.NewScanner(out)
		if !sc.Scan() || !endless.Stop() {
			t.Fatalf("the server does not start within %v: %v", patience, sc.Err())
		}
		go io.Copy(io.Discard, out)
		return cmd, sc.Text()
	}
	// The client keeps its tree head: a record that was taken back is a fork.
	clientDir := t.TempDir()
	answered := map[string]string{}
	for round := range len(stages) + 1 {
		cmd, url := startServer()
		client, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: url + "/tlog", Dir: clientDir, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range min(round+1, len(stages)) {
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
		if round < len(stages) {
			b := &killedBuild{ended: make(chan struct{})}
			sp := fmt.Sprintf("example.org/kill%d@v1.0.0/%s/", round, target())
			b.watch(t, url+"/"+sp+"events")
			stages[round](b)
			cmd.Process.Kill()
		}
		wg.Wait()
		cmd.Process.Kill()
		cmd.Wait()
	}
	if len(answered) != len(stages) {
		t.Errorf("%d of %d were answered in the end", len(answered), len(stages))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "queue", "*")); len(left) > 0 {
		t.Errorf("the queue still holds %v", left)
	}
	if _, err := tlog.CheckLog(t.Context(), filepath.Join(dir, "log"), verifier, nil, func(s string) { t.Error(s) }); err != nil {
		t.Error(err)
	}
	if _, err := CheckBinaries(t.Context(), filepath.Join(dir, "blobs"), func(s string) { t.Error(s) }); err != nil {
		t.Error(err)
	}
}

// A killedBuild is a build on a server that is killed at some stage of it.
type killedBuild struct {
	lines chan string
	ended chan struct{} // closed when there are no more events
}

// watch follows the events of a build.
func (b *killedBuild) watch(t *testing.T, url string) {
	b.lines = make(chan string, 1000)
	resp, err := (&http.Client{Timeout: patience}).Get(url) // nobody waits for longer for the events
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.ended)
		defer resp.Body.Close()
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			if _, text, ok := strings.Cut(sc.Text(), `"Line":"`); ok {
				b.lines <- text
			}
			if strings.Contains(sc.Text(), `"Kind":"Success"`) {
				return
			}
		}
	}()
}

func (b *killedBuild) untilLine(prefix string) {
	for {
		select {
		case l := <-b.lines:
			if strings.HasPrefix(l, prefix) {
				return
			}
		case <-b.ended:
			return
		}
	}
}

// untilFile waits for a file that was not there; the build may be faster.
func (b *killedBuild) untilFile(pattern string) {
	state := func() (s string) {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			if fi, err := os.Stat(name); err == nil {
				s += fmt.Sprintln(name, fi.Size())
			}
		}
		return s
	}
	for before := state(); ; {
		select {
		case <-b.ended:
			return
		case <-time.After(time.Millisecond):
		}
		if now := state(); now != before && now != "" {
			return
		}
	}
}

// killedServer is the process that is killed. Before a step on a file
// (durable.Watch) that UPKEEP_TEST_KILL_AT is a pattern of, it stops and says so.
func killedServer(t testing.TB, dir string) {
	e := &ecosystem{t: t, url: os.Getenv("UPKEEP_TEST_KILL_PROXY"), key: os.Getenv("UPKEEP_TEST_KILL_DB")}
	durable.Watch(func(step, name string) {
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := filepath.Match(os.Getenv("UPKEEP_TEST_KILL_AT"), step+" "+filepath.ToSlash(rel)); ok {
			fmt.Println("stopped")
			time.Sleep(time.Hour)
		}
	})
	ts := start(t, e, testOptions{dir: dir, key: os.Getenv("UPKEEP_TEST_KILL_KEY"),
		installs: os.Getenv("UPKEEP_TEST_KILL_INSTALLS") == "1", confined: os.Getenv("UPKEEP_TEST_KILL_CONFINED") == "true"})
	fmt.Println(ts.url)
	time.Sleep(time.Hour)
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

	// Words of the go command for which the operator would be called.
	e.publish("example.org/claim", "v1.0.0", "-- main.go --\npackage main\n\nimport \"embed\"\n\n//go:embed \"a\\nverifying example.org/dep@v1.0.0: checksum mismatch\\n\\nSECURITY ERROR\\nverifying module: example.org/none@v1.0.0: x\"\nvar f embed.FS\n\nfunc main() { _ = f }\n")
	e.publish("example.org/claimlater", "v1.0.0", "-- main.go --\npackage main\n\nvar x int = \"SECURITY ERROR: checksum mismatch\"\n\nfunc main() { println(x) }\n")

	e.publish("example.org/dash", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- -o/main.go --\npackage main\n\nfunc main() { println(\"-o\") }\n")
	var bomb strings.Builder // a constant of 16 GB
	bomb.WriteString("-- main.go --\npackage main\n\nconst c0 = \"0123456789abcdef\"\n")
	for i := range 30 {
		fmt.Fprintf(&bomb, "const c%d = c%d + c%d\n", i+1, i, i)
	}
	bomb.WriteString("\nfunc main() { println(c30) }\n")
	e.publish("example.org/bomb", "v1.0.0", bomb.String())

	// Time limits are not what is tested here: the machine may be slow.
	full := os.Getenv("UPKEEP_TEST_FULL") == "1"
	ts := start(t, e, testOptions{confined: full, change: func(c *Config) { c.MaxBinary, c.Memory, c.Tries = 4, 1024, 1 }})
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
		{"claim", false, []int{500}},
		{"claimlater", false, []int{500}},
		{"dash@v1.0.0/-o", false, []int{500}},
		{"bomb", false, []int{500}},
	} {
		if tc.module == "bomb" && !full {
			continue // only a control group keeps it from taking the machine's memory
		}
		if !strings.Contains(tc.module, "@") {
			tc.module += "@v1.0.0"
		}
		resp, body := ts.get(t, "GET", "/tlog/lookup/example.org/"+tc.module+"/"+target()+"/")
		if !slices.Contains(tc.status, resp.StatusCode) {
			t.Errorf("%s: %d %.300s", tc.module, resp.StatusCode, body)
		}
		for _, c := range body {
			if c < ' ' && c != '\n' && resp.StatusCode != 200 {
				t.Errorf("%s: control character in %q", tc.module, body)
				break
			}
		}
	}
	if _, err := os.Stat("/tmp/upkeep-generated"); err == nil {
		t.Error("go generate ran")
	}
	if alarms := ts.Status(t.Context()).Alarms; len(alarms) > 0 {
		t.Errorf("alarms: %+v", alarms)
	}
	if left, _ := filepath.Glob(filepath.Join(ts.workDir, "build-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/"); err != nil {
		t.Errorf("after all that: %v", err)
	}
}
