package builder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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
		if strings.Contains(ev.Line+ev.Error, strings.TrimPrefix(e.url, "http://")) {
			t.Errorf("it names the proxy: %+v", ev)
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

// A proxy that answers nothing for too long ends a build at any step, for a
// moment only.
func TestProxySlow(t *testing.T) {
	for _, tc := range []struct{ suffix, text string }{
		{".info", "took longer than this server allows"},
		{".zip", "took longer than this server allows"},
	} {
		t.Run(tc.suffix, func(t *testing.T) {
			e := newEcosystem(t)
			publishHello(e)
			hold := make(chan struct{})
			ended := false
			end := func() {
				if !ended {
					ended = true
					close(hold)
				}
			}
			defer end()
			e.setBroken(func(p string) int {
				e.hold = nil // read after this, under the same lock
				if strings.HasSuffix(p, "/hello/@v/v1.0.0"+tc.suffix) {
					e.hold = hold
				}
				return 0
			})
			ts := start(t, e, testOptions{change: func(c *Config) { c.FetchTimeout = config.Duration(time.Second) }})
			sp := "example.org/hello@v1.0.0/" + target() + "/"
			resp, body := ts.get(t, "GET", "/tlog/lookup/"+sp)
			if resp.StatusCode != 500 || !strings.Contains(string(body), tc.text) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			ts.stop()
			end()
			ts = start(t, e, testOptions{dir: ts.dir, key: ts.key})
			if _, err := ts.lookup(t, sp); err != nil {
				t.Errorf("when it is fast again: %v", err)
			}
		})
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
	await(t, "the proxy is asked", arrived)
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
		await(t, "the build ends", change)
	}
	if j.res.State != StateTempFailed {
		t.Errorf("result %+v", j.res)
	}
}

// No build starts on a disk that is nearly full, and none is remembered as failed.
func TestDiskFull(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.DiskFree = 1 << 30 }})
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
			if tc.alarm { // it is still shown after a restart
				ts.stop()
				again := start(t, e, testOptions{dir: ts.dir, key: ts.key, idle: true}).Status(t.Context()).Alarms
				if len(again) != 1 || again[0].Text != st.Alarms[0].Text || again[0].Time.IsZero() {
					t.Errorf("alarms after a restart: %v", again)
				}
			}
			for _, name := range kept {
				data, err := os.ReadFile(name)
				var m mismatch
				if err == nil {
					err = json.Unmarshal(data, &m)
				}
				// The liar's log names a binary of one byte, which it does not serve.
				if err != nil || m.Spec != sp || !ts.blobs.has(m.Ours.SHA256) || m.Ours.Toolchain == "" ||
					m.Theirs.Verifier != "liar.test" || m.Theirs.Record != strings.TrimSpace(string(lie.Line())) || m.Error == "" {
					t.Errorf("%v: %s", err, data)
				}
			}
		})
	}
}

// Nobody waits for the binary of a verifier that lies and takes its time.
func TestLiarIsSlow(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	other := start(t, e, testOptions{})
	sp := "example.org/hello@v1.0.0/" + target() + "/"
	truth, err := other.lookup(t, sp)
	if err != nil {
		t.Fatal(err)
	}
	liarKey, liarVerifier, err := tlog.GenerateKey("liar.test")
	if err != nil {
		t.Fatal(err)
	}
	liarLog, err := tlog.OpenLog(t.TempDir(), liarKey, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer liarLog.Close()
	lie := spec.Record{Spec: truth.Spec, Size: 1, Sum: "0AAECAwQFBgcICQoLDA0ODxAREhM"}
	if _, err := liarLog.Append(t.Context(), tlog.Entry{Key: sp, Text: lie.Line()}); err != nil {
		t.Fatal(err)
	}
	asked, end := make(chan struct{}), make(chan struct{})
	wasAsked, ended := sync.OnceFunc(func() { close(asked) }), sync.OnceFunc(func() { close(end) })
	log := http.StripPrefix("/tlog", liarLog.Handler(nil))
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/tlog/"):
			log.ServeHTTP(w, r)
		case strings.HasSuffix(r.URL.Path, ".gz"):
			wasAsked()
			<-r.Context().Done()
			ended()
		default:
			http.NotFound(w, r)
		}
	}))
	defer liar.Close()
	// The honest one answers when the liar's binary is being fetched.
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-asked:
			other.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	defer good.Close()
	ts := start(t, e, testOptions{change: func(c *Config) {
		c.Verifiers = []Verifier{{Key: liarVerifier, URL: liar.URL + "/tlog"}, {Key: other.log.VerifierKey(), URL: good.URL + "/tlog"}}
		c.Require, c.VerifyTimeout = 1, config.Duration(2*time.Minute)
	}})
	if _, err := ts.lookup(t, sp); err != nil {
		t.Fatal(err)
	}
	select {
	case <-end:
		t.Error("it was waited for")
	default:
	}
	ts.stop()
	<-end
}

func newSigner(t testing.TB) string {
	t.Helper()
	signer, _, err := tlog.GenerateKey("build.test")
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newKey(t testing.TB, name string) string {
	t.Helper()
	_, verifier, err := tlog.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}
