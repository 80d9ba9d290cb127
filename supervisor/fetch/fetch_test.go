package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

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
	loads, before := r.b.loads.Load(), int32(-1) // before: when progress was told first
	if err := r.f.Download(t.Context(), p, r.dest, func(d, t int64) {
		if last, total = d, t; before < 0 {
			before = r.b.loads.Load()
		}
	}); err != nil || before != loads {
		t.Fatal(before, loads, err)
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
		{"much longer", func(t *testing.T, r *rig) { r.b.recorded = good; r.b.bin = make([]byte, 40<<20) }, BadSize, "sends more than"},
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
			if v != nil && r.f.m.refused.With(v.Kind).Value() != 1 {
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
