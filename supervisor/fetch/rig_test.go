package fetch

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
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

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
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
	reg     *metric.Registry
	signer  string
	dest    string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	signer, verifier, err := tlog.GenerateKey(builderName)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{b: newBuilder(t, t.TempDir(), signer), reg: metric.New(), signer: signer, dest: filepath.Join(t.TempDir(), "hello")}
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

// sumRig adds a module proxy and a checksum database.
func sumRig(t *testing.T) (*Fetcher, map[string][]byte, *tlog.Log) {
	l, verifier := logtest.OpenLog(t, "sum.example.org")
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
