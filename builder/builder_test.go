package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/source"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
)

// sharedDir holds compiled standard libraries for all tests.
var sharedDir string

func TestMain(m *testing.M) {
	sandbox.Reexec()
	os.Exit(func() int {
		var err error
		if sharedDir, err = os.MkdirTemp("", "upkeep-builder-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer removeAll(sharedDir)
		if err := os.Chmod(sharedDir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// goVersion is that of the Go that runs the tests, which is offered to builds.
var goVersion = runtime.Version()

type testService struct {
	*Service
	eco    *ecosystem
	url    string
	client *tlog.Client
	dir    string
	key    string
	stop   func()
}

func (o *testOptions) sandbox(t testing.TB) sandbox.Sandbox {
	if !o.confined {
		return sandbox.Direct{}
	}
	sb, err := sandbox.New(sandbox.Config{})
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return sb
}

type testOptions struct {
	confined bool
	dir      string // of an earlier service
	key      string
	change   func(*Config)
	installs bool // no installed Go is offered
	idle     bool // nothing is built
}

// start runs a service on an ecosystem.
func start(t testing.TB, e *ecosystem, o testOptions) *testService {
	t.Helper()
	sb := o.sandbox(t)
	if o.dir == "" {
		var err error
		// Not t.TempDir: the user that builds run as must be able to enter it.
		if o.dir, err = os.MkdirTemp(sharedDir, "service-"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(o.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if o.key == "" {
			if o.key, _, err = tlog.GenerateKey("build.test"); err != nil {
				t.Fatal(err)
			}
		}
		// What is compiled of the standard library is the same for all tests.
		std := filepath.Join(sharedDir, fmt.Sprint("std-", o.confined))
		if err := errors.Join(os.MkdirAll(std, 0o755), os.Symlink(std, filepath.Join(o.dir, "std"))); err != nil {
			t.Fatal(err)
		}
	}
	proxy, err := goproxy.New(e.url, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	db, err := tlog.NewClient(tlog.ClientConfig{Key: e.key, URL: e.url + "/sumdb/sum.test", Dir: filepath.Join(o.dir, "sumdb")})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	if !o.installs {
		cfg.GoRoot = []string{goRoot(t)}
	}
	cfg.Backoff = config.Duration(10 * time.Millisecond)
	cfg.DiskFree = 0
	cfg.Parallel = 2
	if o.change != nil {
		o.change(&cfg)
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	svc, err := New(Options{Config: cfg, Dir: o.dir, SignerKey: o.key, Sandbox: sb, Source: &source.Source{Proxy: proxy, DB: db},
		GOPROXY: e.url, GOSUMDB: e.gosumdb(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	if o.idle {
		ran <- nil
	} else {
		go func() { ran <- svc.Run(ctx) }()
	}
	srv := httptest.NewServer(svc)
	stopped := false
	ts := &testService{Service: svc, eco: e, url: srv.URL, dir: o.dir, key: o.key}
	ts.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		srv.CloseClientConnections()
		srv.Close()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(ts.stop)
	if ts.client, err = tlog.NewClient(tlog.ClientConfig{Key: svc.log.VerifierKey(), URL: ts.url + "/tlog", Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return ts
}

func startWithKey(t testing.TB, e *ecosystem, key string, change func(*Config)) *testService {
	return start(t, e, testOptions{key: key, change: change})
}

// lookup asks the build log, verified, which builds.
func (ts *testService) lookup(t testing.TB, sp string) (spec.Record, error) {
	t.Helper()
	rec, err := ts.client.Lookup(t.Context(), sp)
	if err != nil {
		return spec.Record{}, err
	}
	r, err := spec.ParseRecord(rec.Data)
	if err != nil {
		t.Fatal(err)
	}
	if r.Spec.String() != sp {
		t.Fatalf("record of %s for %s", r.Spec, sp)
	}
	return r, nil
}

// get asks over HTTP without following redirects.
func (ts *testService) get(t testing.TB, method, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, ts.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func target() string { return runtime.GOOS + "-" + runtime.GOARCH + "-" + goVersion }

const helloSource = `
-- main.go --
package main

import "example.org/dep"

func main() { println(dep.Text) }
-- go.mod --
module example.org/hello

go 1.21

require example.org/dep v1.0.0
-- cmd/other/main.go --
// Other says something else.
package main

func main() { println("other") }
-- lib/lib.go --
package lib
`

func publishHello(e *ecosystem) {
	e.publish("example.org/dep", "v1.0.0", "-- dep.go --\npackage dep\n\nconst Text = \"hello\"\n")
	e.publish("example.org/hello", "v1.0.0", helloSource)
	e.publish("example.org/hello", "v1.0.1", strings.Replace(helloSource, "println(dep.Text)", "println(dep.Text, 1)", 1))
}

// hello returns an ecosystem with a command, and the record of an honest builder.
func hello(t *testing.T) (*ecosystem, spec.Record) {
	t.Helper()
	e := newEcosystem(t)
	publishHello(e)
	rec, err := start(t, e, testOptions{}).lookup(t, "example.org/hello@v1.0.0/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	return e, rec
}

// The bytes must be those of a plain go install, in and out of the sandbox.
func TestBytes(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	for _, confined := range []bool{false, true} {
		t.Run(fmt.Sprintf("confined=%v", confined), func(t *testing.T) {
			ts := start(t, e, testOptions{confined: confined})
			for _, tc := range []struct{ spec, pkg, goos, goarch, ldflags string }{
				{"example.org/hello@v1.0.0/" + target() + "/", "example.org/hello@v1.0.0", runtime.GOOS, runtime.GOARCH, "-buildid="},
				{"example.org/hello@v1.0.1/" + target() + "-stripped/", "example.org/hello@v1.0.1", runtime.GOOS, runtime.GOARCH, "-buildid= -s"},
				{"example.org/hello@v1.0.1/cmd/other/" + target() + "/", "example.org/hello/cmd/other@v1.0.1", runtime.GOOS, runtime.GOARCH, "-buildid="},
			} {
				rec, err := ts.lookup(t, tc.spec)
				if err != nil {
					t.Fatal(err)
				}
				want := e.plainInstall(tc.pkg, tc.goos, tc.goarch, tc.ldflags)
				d := spec.NewDigest()
				d.Write(want)
				if rec.Sum != d.Sum() || rec.Size != d.Size() {
					t.Errorf("%s: sum %s, size %d; go install gives %s, %d", tc.spec, rec.Sum, rec.Size, d.Sum(), d.Size())
				}
				resp, got := ts.get(t, "GET", "/"+tc.spec+rec.Sum+"/"+rec.FileName())
				if resp.StatusCode != 200 || !bytes.Equal(got, want) {
					t.Errorf("%s: status %d, %d bytes that differ from go install's %d", tc.spec, resp.StatusCode, len(got), len(want))
				}
				res, err := ts.Result(rec.Spec)
				if err != nil || res.SHA256 != d.Hex() || (len(res.Missing) == 0) != confined {
					t.Errorf("result %+v, %v", res, err)
				}
			}
			// What was compiled of dependencies is shared only when each compiler is confined.
			ts.background.Wait()
			shared, err := filepath.Glob(filepath.Join(ts.dir, "deps", "*", "*", "*-d"))
			if err != nil || (len(shared) > 0) != confined {
				t.Errorf("%d shared files, %v", len(shared), err)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.publish("example.org/replaced", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/replaced\n\ngo 1.21\n\nreplace example.org/dep => ./dep\n")
	e.publish("example.org/excluded", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/excluded\n\nexclude example.org/dep v1.0.0\n")
	e.publish("example.org/excluded", "v1.0.1", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/excluded\n")
	e.publish("example.org/newer", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/newer\n\ngo 1.999\n")
	e.publish("example.org/newerdep", "v1.0.0", "-- main.go --\npackage main\n\nimport _ \"example.org/newer/lib\"\n\nfunc main() {}\n-- go.mod --\nmodule example.org/newerdep\n\nrequire example.org/newer v1.0.0\n")
	e.publish("example.org/renamed", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/other\n")
	e.publish("example.org/badmod", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/badmod\n\nrequire (\n")
	e.publish("example.org/cgo", "v1.0.0", "-- main.go --\npackage main\n\nimport \"C\"\n\nfunc main() {}\n")
	e.publish("example.org/broken", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() { undefined() }\n")
	e.publish("example.org/nodep", "v1.0.0", "-- main.go --\npackage main\n\nimport _ \"example.org/gone\"\n\nfunc main() {}\n-- go.mod --\nmodule example.org/nodep\n\nrequire example.org/gone v1.0.0\n")
	e.publish("example.org/embed", "v1.0.0", "-- main.go --\npackage main\n\nimport _ \"embed\"\n\n//go:embed none\nvar s string\n\nfunc main() { println(s) }\n")
	e.publish("example.org/nomain", "v1.0.0", "-- main.go --\npackage main\n\nvar X = 1\n")
	e.publish("example.org/asm", "v1.0.0", "-- main.go --\npackage main\n\nfunc f()\n\nfunc main() { f() }\n")
	e.publish("example.org/nostd", "v1.0.0", "-- main.go --\npackage main\n\nimport _ \"nosuchpackage\"\n\nfunc main() {}\n")
	ts := start(t, e, testOptions{})
	for _, tc := range []struct {
		spec     string
		notFound bool
		passing  bool // known for a moment only
		text     string
	}{
		{"example.org/nothing@v1.0.0/" + target() + "/", true, true, "example.org/nothing@v1.0.0 is not known to the module proxy."},
		{"example.org/hello@v9.9.9/" + target() + "/", true, true, ""},
		{"example.org/hello@v1.9.9/" + target() + "/", true, true, "example.org/hello@v1.9.9 is not known to the module proxy."},
		{"example.org/hello@v1.0.0/none/" + target() + "/", true, false, "There is no package example.org/hello/none in example.org/hello@v1.0.0."},
		{"example.org/hello@v1.0.0/lib/" + target() + "/", true, false, "Package example.org/hello/lib is not a command: it is not package main."},
		{"example.org/hello@v1.0.0/linux-sparc64-" + goVersion + "/", true, false, goVersion + " has no working target linux/sparc64."},
		{"example.org/hello@v1.0.0/beos-amd64-" + goVersion + "/", true, false, goVersion + " has no working target beos/amd64."},
		{"example.org/hello@v1.0.0/linux-amd64-go1.22/", true, true, "its first toolchain is go1.22.0"},
		{"example.org/hello@v1.0.0/linux-amd64-go1.2/", true, false, "The module needs go1.21 or later"},
		{"example.org/excluded@v1.0.1/linux-amd64-go1.2/", true, true, "There is no such Go version"},
		{"example.org/hello@v1.0.0/linux-amd64-go1.22.999/", true, true, "There is no such Go version: go1.22.999"},
		{"example.org/replaced@v1.0.0/" + target() + "/", true, false, "has replace directives"},
		{"example.org/excluded@v1.0.0/" + target() + "/", true, false, "has exclude directives"},
		{"example.org/newer@v1.0.0/" + target() + "/", true, false, "The module needs go1.999 or later; the build was asked for with " + goVersion + "."},
		{"example.org/newerdep@v1.0.0/" + target() + "/", true, false, "needs Go 1.999 or later"},
		{"example.org/renamed@v1.0.0/" + target() + "/", true, false, "says that its path is example.org/other"},
		{"example.org/badmod@v1.0.0/" + target() + "/", false, false, "go.mod can't be read"},
		{"example.org/cgo@v1.0.0/" + target() + "/", true, false, "without cgo"},
		{"example.org/broken@v1.0.0/" + target() + "/", false, false, "The source does not compile: "},
		{"example.org/nodep@v1.0.0/" + target() + "/", true, true, "example.org/gone@v1.0.0 is not known to the module proxy"},
		{"example.org/embed@v1.0.0/" + target() + "/", false, false, "embeds files that the module does not hold"},
		{"example.org/nomain@v1.0.0/" + target() + "/", false, false, "does not"},
		{"example.org/asm@v1.0.0/" + target() + "/", false, false, "does not"},
		{"example.org/nostd@v1.0.0/" + target() + "/", true, false, "has no package nosuchpackage"},
		{"example.org/hello@v1.0.0/ios-amd64-" + goVersion + "/", true, false, "cgo"},
	} {
		sp, err := spec.Parse(tc.spec)
		if err != nil {
			if resp, _ := ts.get(t, "GET", "/tlog/lookup/"+tc.spec); resp.StatusCode != 404 {
				t.Errorf("%s: status %d", tc.spec, resp.StatusCode)
			}
			continue
		}
		resp, body := ts.get(t, "GET", "/tlog/lookup/"+tc.spec)
		want := 500
		if tc.notFound {
			want = 404
		}
		if resp.StatusCode != want || !strings.Contains(string(body), tc.text) {
			t.Errorf("%s: status %d %q; want %d and %q", tc.spec, resp.StatusCode, body, want, tc.text)
		}
		if strings.Contains(string(body), ts.dir) || strings.Contains(string(body), e.url) {
			t.Errorf("%s: the answer shows a path or the proxy: %s", tc.spec, body)
		}
		if out, err := ts.Output(sp); err != nil || strings.Contains(strings.Join(out, "\n"), goRoot(t)+"/") {
			t.Errorf("%s: the output shows a path: %q, %v", tc.spec, out, err)
		}
		res, err := ts.Result(sp)
		if err != nil || res.State != StateFailed || res.RetryAt.IsZero() == tc.passing {
			t.Errorf("%s: result %+v, %v", tc.spec, res, err)
		}
		if _, kept, _ := ts.results.load(sp); kept == tc.passing {
			t.Errorf("%s: kept %v", tc.spec, kept)
		}
	}
}

// BenchmarkBuild measures the build of a new version of a small net/http
// server, confined where this machine can do that, with the standard library
// compiled before.
func BenchmarkBuild(b *testing.B) {
	e := newEcosystem(b)
	publish := func(i int) {
		e.publish("example.org/server", fmt.Sprintf("v1.0.%d", i), fmt.Sprintf("-- main.go --\npackage main\n\nimport (\n\t\"log\"\n\t\"net/http\"\n)\n\nfunc main() {\n\tlog.Fatal(http.ListenAndServe(\":%d\", nil))\n}\n", 8000+i))
	}
	for i := range b.N + 1 {
		publish(i)
	}
	_, err := sandbox.New(sandbox.Config{})
	ts := start(b, e, testOptions{confined: err == nil})
	build := func(i int) spec.Record {
		rec, err := ts.lookup(b, fmt.Sprintf("example.org/server@v1.0.%d/%s/", i, target()))
		if err != nil {
			b.Fatal(err)
		}
		return rec
	}
	build(0)
	var cpu time.Duration
	i := 0
	for b.Loop() {
		i++
		if i > b.N {
			publish(i)
		}
		rec := build(i)
		res, err := ts.Result(rec.Spec)
		if err != nil {
			b.Fatal(err)
		}
		for _, st := range res.Steps {
			cpu += st.CPU
		}
	}
	b.ReportMetric(cpu.Seconds()/float64(i), "CPU-s/op")
	b.ReportMetric(b.Elapsed().Seconds()/float64(i)/2, "of-limit")
}
