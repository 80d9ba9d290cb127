package fetch

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

const (
	helloModule = "example.org/hello"
	builderName = "builder.example.org"
)

// modules are the files of the test's modules.
var modules = map[string]map[string]string{
	helloModule + "@v1.0.0": {
		"go.mod":              "module example.org/hello\n\ngo 1.21\n",
		"main.go":             "package main\n\nfunc main() { println(\"hello\") }\n",
		"lib/lib.go":          "package lib\n",
		"cmd/extra/main.go":   "package main\n\nfunc main() {}\n",
		"cmd/win/main.go":     "//go:build windows\n\npackage main\n\nfunc main() {}\n",
		"cmd/gen/gen.go":      "//go:build ignore\n\npackage main\n\nfunc main() {}\n",
		"cmd/arm/a_arm64.go":  "package main\n\nfunc main() {}\n",
		"testdata/x/main.go":  "package main\n",
		"internal/m_test.go":  "package main\n",
		"cmd/broken/x.go":     "pakcage main\n",
		"cmd/unix/u.go":       "//go:build unix && !plan9\n\npackage main\n\nfunc main() {}\n",
		"cmd/windows/main.go": "package lib\n",
	},
}

func zipOf(t testing.TB, mv string) []byte {
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for name, text := range modules[mv] {
		w, err := zw.Create(mv + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// proxyFiles serves the test's modules as a module proxy.
func proxyFiles(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	for mv, src := range modules {
		mod, v, _ := strings.Cut(mv, "@")
		files["/"+mod+"/@v/list"] = append(files["/"+mod+"/@v/list"], v+"\nv0.9.0-rc1\n"...)
		files["/"+mod+"/@v/"+v+".info"] = fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-02T03:04:05Z"}`, v)
		files["/"+mod+"/@v/"+v+".mod"] = []byte(src["go.mod"])
		files["/"+mod+"/@v/"+v+".zip"] = zipOf(t, mv)
	}
	files["/golang.org/toolchain/@v/list"] = []byte("v0.0.1-go1.26.9.linux-amd64\nv0.0.1-go1.27.4.linux-amd64\nv0.0.1-go1.28rc1.linux-amd64\nv0.0.1-go1.29.0.linux-arm64\nv0.0.1-go1.9999999999999999999999\n")
	return files
}

var binary = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "upkeep-fetch-test-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	tb := &panicTB{}
	srv := httptest.NewServer(files(proxyFiles(tb)))
	defer srv.Close()
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags=-buildid=", helloModule+"@v1.0.0")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY="+srv.URL, "GONOSUMDB=*", "GOFLAGS=-modcacherw", "CGO_ENABLED=0", "GOBIN="+dir, "GOMODCACHE="+filepath.Join(dir, "mod"), "GOTOOLCHAIN=local", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "hello"+spec.Spec{GOOS: runtime.GOOS}.Exe()))
})

type panicTB struct{ testing.TB }

func (*panicTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func helloBinary(t testing.TB) []byte {
	if _, err := exec.LookPath("go"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal("the go command is needed to build the sample and is not there")
		}
		t.Skip("the go command is not there to build the sample")
	}
	b, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func files(m map[string][]byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, ok := m[r.URL.Path]; ok {
			w.Write(b)
			return
		}
		http.Error(w, "not found: no such file", http.StatusNotFound)
	})
}

func helloSpec() spec.Spec {
	return spec.Spec{Module: helloModule, Version: "v1.0.0", GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, GoVersion: runtime.Version()}
}

// A fakeBuilder is a build service that can be told to lie.
type fakeBuilder struct {
	log      *tlog.Log
	bin      []byte
	recorded []byte                    // what the record is made of, when it is not bin
	spec     func(spec.Spec) spec.Spec // of the record
	serve    func(w http.ResponseWriter, r *http.Request, gz []byte)
	fail     error
	builds   atomic.Int32
	loads    atomic.Int32
	handler  http.Handler
}

type statusError struct {
	code int
	text string
}

func (e statusError) Error() string   { return e.text }
func (e statusError) HTTPStatus() int { return e.code }

func newBuilder(t testing.TB, dir, key string) *fakeBuilder {
	l, err := tlog.OpenLog(dir, key, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b := &fakeBuilder{log: l}
	b.handler = l.Handler(b.build)
	return b
}

func (b *fakeBuilder) build(ctx context.Context, key string) error {
	b.builds.Add(1)
	if b.fail != nil {
		return b.fail
	}
	s, err := spec.Parse(key)
	if err != nil {
		return statusError{404, err.Error()}
	}
	if b.spec != nil {
		s = b.spec(s)
	}
	data := b.bin
	if b.recorded != nil {
		data = b.recorded
	}
	rec := spec.Record{Spec: s, Size: int64(len(data)), Sum: spec.Sum(sha256.Sum256(data))}
	_, err = b.log.Append(ctx, tlog.Entry{Key: key, Text: rec.Line()})
	return err
}

func (b *fakeBuilder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/tlog/"):
		http.StripPrefix("/tlog", b.handler).ServeHTTP(w, r)
	case strings.HasSuffix(r.URL.Path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, ": hello\n\nevent: update\ndata: {\"Kind\":\"QueuePosition\",\"QueuePosition\":2}\n\nevent: update\ndata: {\"Kind\":\"QueuePosition\",\"QueuePosition\":0}\n\nevent: update\ndata: {\"Kind\":\"Success\",\"Sum\":\"0x\"}\n\n")
	case strings.HasSuffix(r.URL.Path, ".gz"):
		b.loads.Add(1)
		gz := compressed(b.bin)
		if b.serve != nil {
			b.serve(w, r, gz)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(gz))
	default:
		b.loads.Add(1)
		http.NotFound(w, r)
	}
}

func compressed(b []byte) []byte {
	var out bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	zw.Write(b)
	zw.Close()
	return out.Bytes()
}

type rig struct {
	b       *fakeBuilder
	handler atomic.Pointer[http.Handler]
	f       *Fetcher
	reg     *prometheus.Registry
	signer  string
	dest    string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	signer, verifier, err := tlog.GenerateKey(builderName)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{b: newBuilder(t, t.TempDir(), signer), reg: prometheus.NewRegistry(), signer: signer, dest: filepath.Join(t.TempDir(), "hello")}
	r.use(r.b)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { (*r.handler.Load()).ServeHTTP(w, q) }))
	t.Cleanup(srv.Close)
	if r.f, err = New(Config{Key: verifier, Builder: srv.URL + "/tlog", Dir: t.TempDir()}, Options{Metrics: r.reg}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.f.Close)
	return r
}

func (r *rig) use(h http.Handler) { r.handler.Store(&h) }

// get looks up and downloads.
func (r *rig) get(ctx context.Context, s spec.Spec) error {
	p, err := r.f.Lookup(ctx, s, nil)
	if err != nil {
		return err
	}
	return r.f.Download(ctx, p, r.dest, nil)
}

func TestFetch(t *testing.T) {
	r := newRig(t)
	r.b.bin = helloBinary(t)
	var states []string
	var mu sync.Mutex
	r.b.fail = nil
	p, err := r.f.Lookup(t.Context(), helloSpec(), func(p Progress) { mu.Lock(); states = append(states, p.State); mu.Unlock() })
	if err != nil {
		t.Fatal(err)
	}
	if p.Record.Spec != helloSpec() || p.Index != 0 || p.Head.Size != 1 {
		t.Errorf("proof %+v", p)
	}
	var last, total int64
	if err := r.f.Download(t.Context(), p, r.dest, func(d, t int64) { last, total = d, t }); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(r.dest)
	if err != nil || !bytes.Equal(got, r.b.bin) || last != int64(len(got)) || total != last {
		t.Errorf("%d bytes, %d of %d, %v", len(got), last, total, err)
	}
	if fi, err := os.Stat(r.dest); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := r.f.Lookup(t.Context(), helloSpec(), nil); err != nil || r.b.builds.Load() != 1 {
		t.Errorf("second lookup: %v after %d builds", err, r.b.builds.Load())
	}
}

func TestProgress(t *testing.T) {
	var got []string
	readEvents(strings.NewReader("event: update\ndata: {\"Kind\":\"QueuePosition\",\"QueuePosition\":2}\n\nevent: other\ndata: {}\n\n"+
		"event: update\ndata: {\"Kind\":\"QueuePosition\",\"QueuePosition\":0}\n\nevent: update\ndata: nonsense\n\n"+
		"event: update\ndata: {\"Kind\":\"PermFailed\",\"Error\":\"no\\nmore\"}\n\n"), func(p Progress) bool {
		got = append(got, fmt.Sprintf("%s %d %s", p.State, p.Position, p.Text))
		return true
	})
	if want := "queued 2 |building 0 |failed 0 no"; strings.Join(got, "|") != want {
		t.Errorf("%q", got)
	}
}

// Whatever the builder does, nothing but the recorded binary of the program
// that was asked for is ever at the destination.
func TestLies(t *testing.T) {
	good := helloBinary(t)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	resumeDelay = time.Millisecond
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, r *rig)
		kind string // "" = any other error, "ok" = none
		says string
	}{
		{"one bit flipped", func(t *testing.T, r *rig) { r.b.recorded = good; r.b.bin = flipped }, BadSum, "is not what was built"},
		{"longer", func(t *testing.T, r *rig) { r.b.recorded = good; r.b.bin = append(bytes.Clone(good), 0) }, BadSize, "sends more than"},
		{"much longer", func(t *testing.T, r *rig) { r.b.recorded = good; r.b.bin = make([]byte, 300<<20) }, BadSize, "sends more than"},
		{"shorter", func(t *testing.T, r *rig) { r.b.recorded = good; r.b.bin = good[:len(good)-1] }, BadSize, "and the record"},
		{"endless gzip stream of nothing", func(t *testing.T, r *rig) {
			r.b.serve = func(w http.ResponseWriter, q *http.Request, gz []byte) {
				w.Write(gz[:10])
				for {
					// Empty stored blocks.
					if _, err := w.Write(bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1000)); err != nil {
						return
					}
				}
			}
		}, BadSize, "sends more for"},
		{"connection breaks once", func(t *testing.T, r *rig) {
			r.b.serve = func(w http.ResponseWriter, q *http.Request, gz []byte) {
				if q.Header.Get("Range") == "" {
					w.Header().Set("Content-Length", fmt.Sprint(len(gz)))
					w.Write(gz[:len(gz)/2])
					panic(http.ErrAbortHandler)
				}
				http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(gz))
			}
		}, "ok", ""},
		{"connection breaks once, no ranges", func(t *testing.T, r *rig) {
			first := true
			r.b.serve = func(w http.ResponseWriter, q *http.Request, gz []byte) {
				w.Header().Set("Content-Length", fmt.Sprint(len(gz)))
				if first {
					first = false
					w.Write(gz[:len(gz)/2])
					panic(http.ErrAbortHandler)
				}
				w.Write(gz)
			}
		}, "ok", ""},
		{"connection breaks each time", func(t *testing.T, r *rig) {
			r.b.serve = func(w http.ResponseWriter, q *http.Request, gz []byte) {
				w.Header().Set("Content-Length", fmt.Sprint(len(gz)))
				w.Write(gz[:100])
				panic(http.ErrAbortHandler)
			}
		}, "", "downloading"},
		{"not gzip", func(t *testing.T, r *rig) {
			r.b.serve = func(w http.ResponseWriter, q *http.Request, gz []byte) { w.Write(good) }
		}, "", "not a gzip file"},
		{"uncompressed only", func(t *testing.T, r *rig) {
			r.b.serve = func(w http.ResponseWriter, q *http.Request, gz []byte) { http.NotFound(w, q) }
		}, "", "404"},
		{"record of another program", func(t *testing.T, r *rig) {
			r.b.spec = func(s spec.Spec) spec.Spec { s.Module = "example.org/evil"; return s }
		}, RecordMismatch, "which is for example.org/evil"},
		{"record of another Go version", func(t *testing.T, r *rig) {
			r.b.spec = func(s spec.Spec) spec.Spec { s.GoVersion = "go1.20.1"; return s }
		}, RecordMismatch, "which is for"},
		{"record of the stripped variant", func(t *testing.T, r *rig) {
			r.b.spec = func(s spec.Spec) spec.Spec { s.Stripped = true; return s }
		}, RecordMismatch, "which is for"},
		{"record that is none", func(t *testing.T, r *rig) {
			if _, err := r.b.log.Append(t.Context(), tlog.Entry{Key: helloSpec().String(), Text: []byte("hello\n")}); err != nil {
				t.Fatal(err)
			}
		}, RecordMismatch, "fields instead of"},
		{"not a Go program", func(t *testing.T, r *rig) { r.b.bin = []byte("#!/bin/sh\nexit 0\n") }, BuildInfo, "does not say that it is that program"},
		{"log forks", func(t *testing.T, r *rig) {
			if err := r.get(t.Context(), helloSpec()); err != nil {
				t.Fatal(err)
			}
			os.Remove(r.dest)
			b := newBuilder(t, t.TempDir(), r.signer)
			b.bin, b.recorded = flipped, flipped
			b.build(t.Context(), helloSpec().String())
			r.b = b
			r.use(b)
		}, LogFork, "forked"},
		{"log shrinks", func(t *testing.T, r *rig) {
			if err := r.get(t.Context(), helloSpec()); err != nil {
				t.Fatal(err)
			}
			os.Remove(r.dest)
			r.b = newBuilder(t, t.TempDir(), r.signer)
			r.b.fail = statusError{500, "no build"}
			r.use(r.b)
		}, "shrunk", ""},
		{"log of another key", func(t *testing.T, r *rig) {
			other, _, err := tlog.GenerateKey(builderName)
			if err != nil {
				t.Fatal(err)
			}
			r.b = newBuilder(t, t.TempDir(), other)
			r.b.bin = good
			r.use(r.b)
		}, BadSignature, "not signed by the configured key"},
		{"build fails for good", func(t *testing.T, r *rig) { r.b.fail = statusError{404, "not a main package"} }, "permanent", "not a main package"},
		{"build fails for now", func(t *testing.T, r *rig) { r.b.fail = statusError{500, "disk full"} }, "temporary", "disk full"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.b.bin = good
			tc.do(t, r)
			loads, builds := r.b.loads.Load(), r.b.builds.Load()
			err := r.get(t.Context(), helloSpec())
			if tc.kind == "ok" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v; want %q", err, tc.says)
			}
			var v *VerifyError
			var be *BuildError
			kind := ""
			switch {
			case errors.As(err, &v) && tc.kind == "shrunk":
				kind = map[string]string{LogStale: "shrunk", LogFork: "shrunk"}[v.Kind]
			case errors.As(err, &v):
				kind = v.Kind
			case errors.As(err, &be) && be.Permanent:
				kind = "permanent"
			case errors.As(err, &be):
				kind = "temporary"
			}
			if kind != tc.kind {
				t.Errorf("kind %q, want %q: %v", kind, tc.kind, err)
			}
			if v != nil && testutil.ToFloat64(r.f.m.refused.WithLabelValues(v.Kind)) != 1 {
				t.Errorf("metric of %s is not 1", v.Kind)
			}
			if kind == BadSignature && (r.b.loads.Load() != loads || r.b.builds.Load() != builds) {
				t.Error("something was built or downloaded under a wrong key")
			}
			entries, err := os.ReadDir(filepath.Dir(r.dest))
			if err != nil || len(entries) != 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// sumRig adds a module proxy and a checksum database.
func sumRig(t *testing.T) (*Fetcher, map[string][]byte, *tlog.Log) {
	signer, verifier, err := tlog.GenerateKey("sum.example.org")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	add := func(mod, v, h, hmod string) {
		path, _ := module.EscapePath(mod)
		if _, err := l.Append(t.Context(), tlog.Entry{Key: path + "@" + v, Text: fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", mod, v, h, mod, v, hmod)}); err != nil {
			t.Fatal(err)
		}
	}
	fs := proxyFiles(t)
	for mv, src := range modules {
		mod, v, _ := strings.Cut(mv, "@")
		file := filepath.Join(t.TempDir(), "zip")
		if err := os.WriteFile(file, fs["/"+mod+"/@v/"+v+".zip"], 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := dirhash.HashZip(file, dirhash.Hash1)
		if err != nil {
			t.Fatal(err)
		}
		hm, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(src["go.mod"])), nil })
		if err != nil {
			t.Fatal(err)
		}
		add(mod, v, h, hm)
	}
	add("golang.org/toolchain", "v0.0.1-go1.27.4.linux-amd64", "h1:x=", "h1:y=")
	fs["/sumdb/sum.example.org/supported"] = nil
	mux := http.NewServeMux()
	mux.Handle("/sumdb/sum.example.org/", http.StripPrefix("/sumdb/sum.example.org", l.Handler(nil)))
	mux.Handle("/sumdb/sum.example.org/supported", files(fs))
	mux.Handle("/", files(fs))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	mux.HandleFunc("/example.org/refused/", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not for you", http.StatusForbidden) })
	_, key, err := tlog.GenerateKey(builderName)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Key: key, Dir: t.TempDir(), Proxy: srv.URL, SumDB: verifier}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f, fs, l
}

func TestSumDB(t *testing.T) {
	f, fs, l := sumRig(t)
	ctx := t.Context()
	if err := f.VerifyVersion(ctx, helloModule, "v1.0.0"); err != nil {
		t.Error(err)
	}
	var v *VerifyError
	if err := f.VerifyVersion(ctx, helloModule, "v1.0.9"); !errors.As(err, &v) || v.Kind != SumDBMissing {
		t.Errorf("invented version: %v", err)
	}
	if _, err := l.Append(ctx, tlog.Entry{Key: "example.org/other@v1.0.0", Text: []byte("example.org/hello v1.0.0 h1:x=\nexample.org/hello v1.0.0/go.mod h1:y=\n")}); err != nil {
		t.Fatal(err)
	}
	if err := f.VerifyVersion(ctx, "example.org/other", "v1.0.0"); !errors.As(err, &v) || v.Kind != SumDBBad {
		t.Errorf("record of another module: %v", err)
	}
	if got, err := f.Versions(ctx, helloModule); err != nil || len(got) != 1 || got[0].Version != "v1.0.0" || got[0].Time.IsZero() {
		t.Errorf("versions %v, %v", got, err)
	}
	if got, err := f.LatestGo(ctx, "linux", "amd64"); err != nil || got != "go1.27.4" {
		t.Errorf("latest Go %q, %v", got, err)
	}
	if got, err := f.Packages(ctx, helloModule, "v1.0.0", "linux", "amd64"); err != nil || strings.Join(got.Commands, ",") != ",cmd/extra,cmd/unix" || strings.Join(got.Libraries, ",") != "cmd/windows,lib" {
		t.Errorf("commands %q, %v", got, err)
	}
	if got, err := f.Split(ctx, helloModule+"/cmd/extra"); err != nil || got.Module != helloModule || got.Dir != "cmd/extra" {
		t.Errorf("split %+v, %v", got, err)
	}
	if _, err := f.Split(ctx, "example.org/nothing/cmd"); err == nil || !strings.Contains(err.Error(), "example.org/nothing/cmd not found at the module proxy http") {
		t.Errorf("split of an unknown module: %v", err)
	}
	if _, err := f.Split(ctx, "example.org/refused/cmd"); err == nil || !strings.Contains(err.Error(), "not found") || !strings.Contains(err.Error(), "403: not for you") {
		t.Errorf("split of a refused module: %v", err)
	}
	if got, err := f.GoMod(ctx, helloModule, "v1.0.0"); err != nil || string(got) != modules[helloModule+"@v1.0.0"]["go.mod"] {
		t.Errorf("go.mod %q, %v", got, err)
	}
	fs["/"+helloModule+"/@v/v1.0.0.mod"] = []byte("module example.org/hello\nretract v1.0.0\n")
	if _, err := f.GoMod(ctx, helloModule, "v1.0.0"); !errors.As(err, &v) || v.Kind != SumDBBad {
		t.Errorf("changed go.mod: %v", err)
	}
	fs["/"+helloModule+"/@v/v1.0.0.zip"] = bytes.Replace(zipOf(t, helloModule+"@v1.0.0"), []byte("cmd/extra"), []byte("cmd/evils"), -1)
	if _, err := f.Packages(ctx, helloModule, "v1.0.0", "linux", "amd64"); !errors.As(err, &v) || v.Kind != SumDBBad {
		t.Errorf("changed zip: %v", err)
	}
}

func TestNew(t *testing.T) {
	_, key, err := tlog.GenerateKey("builder")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		cfg  Config
		base string
		err  string
	}{
		{Config{}, "", "key is not set"},
		{Config{Key: "nonsense"}, "", "not a verifier key"},
		{Config{Key: key}, "", "no state folder"},
		{Config{Key: key, Dir: "x", Builder: "ftp://x"}, "", "not an http"},
		{Config{Key: key, Dir: "x", SumDB: "off"}, "", "checksum database"},
		{Config{Key: key, Dir: "x", Proxy: "direct"}, "", "names no proxy"},
		{Config{Key: key, Dir: "x"}, "http://builder:8000", ""},
		{Config{Key: key, Dir: "x", Builder: "https://b.example.org/sub/tlog/"}, "https://b.example.org/sub", ""},
	} {
		if tc.cfg.Dir != "" {
			tc.cfg.Dir = t.TempDir()
		}
		f, err := New(tc.cfg, Options{})
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: %v; want %q", tc.cfg, err, tc.err)
			}
		case err != nil || f.Builder() != tc.base:
			t.Errorf("%+v: %v", tc.cfg, err)
		}
	}
}
