package toolchain

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

const zosarch = `package platform

var List = []OSArch{{"linux", "amd64"}}

var distInfo = map[OSArch]osArchInfo{
	{"linux", "amd64"}:   {CgoSupported: true, FirstClass: true},
	{"js", "wasm"}:       {},
	{"linux", "sparc64"}: {CgoSupported: true, Broken: true},
}
`

// goRoot returns the folder of the machine's Go. Without one the test is
// skipped, or fails when UPKEEP_TEST_FULL is 1.
func goRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil && os.Getenv("UPKEEP_TEST_FULL") == "1" {
		t.Fatalf("no go command says where it is: %v", err)
	} else if err != nil {
		t.Skipf("no go command says where it is: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestParseTargets(t *testing.T) {
	got, err := parseTargets([]byte(zosarch))
	if err != nil || len(got) != 2 || !got[Target{"linux", "amd64"}] || !got[Target{"js", "wasm"}] {
		t.Errorf("%v, %v", got, err)
	}
	real_, err := read(goRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[Target]bool{{"linux", "amd64"}: true, {"windows", "arm64"}: true, {"linux", "sparc64"}: false, {"beos", "amd64"}: false} {
		if real_.Targets[target] != want {
			t.Errorf("%v: %v", target, !want)
		}
	}
	for _, bad := range []string{"", "package platform", "not go"} {
		if got, err := parseTargets([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add([]byte(zosarch))
	f.Fuzz(func(t *testing.T, src []byte) {
		if targets, err := parseTargets(src); err == nil && len(targets) == 0 {
			t.Fatal("no targets and no error")
		}
	})
}

func TestVersions(t *testing.T) {
	host := Target{"linux", "amd64"}
	list := []string{"v0.0.1-go1.26.9.linux-amd64", "v0.0.1-go1.26.10.linux-amd64", "v0.0.1-go1.27.4.linux-amd64", "v0.0.1-go1.27.4.linux-arm64",
		"v0.0.1-go1.28rc1.linux-amd64", "v0.0.1-go1.28beta1.linux-amd64", "v0.0.1-go1.20.1.linux-amd64", "v0.0.1-go1.26.linux-amd64", "nonsense", "v0.0.1-go1.27.4.linux-amd64"}
	got := goVersions(list, host)
	if want := []string{"go1.28rc1", "go1.28beta1", "go1.27.4", "go1.26.10", "go1.26.9"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, tc := range []struct {
		versions string
		want     Line
	}{
		{"go1.28rc1 go1.27.4 go1.26.10 go1.26.9", Line{"go1.27.4", "go1.26.10", "go1.28rc1"}},
		{"go1.27.4 go1.27rc1 go1.27.3", Line{"go1.27.4", "", ""}},
		{"go1.28beta1 go1.27.4", Line{"go1.27.4", "", ""}},
		{"", Line{}},
		{"go1.28rc2 go1.28rc1", Line{"", "", "go1.28rc2"}},
	} {
		if got := choose(strings.Fields(tc.versions)); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.versions, got, tc.want)
		}
	}
}

// A list that could not be had is soon asked for again; one that was is not.
func TestListFails(t *testing.T) {
	broken, asked := true, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if broken {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, moduleVersion("go1.26.3", Target{runtime.GOOS, runtime.GOARCH}))
	}))
	defer srv.Close()
	proxy, err := goproxy.New(srv.URL, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.TempDir(), &source.Source{Proxy: proxy, DB: fixed{}}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := s.Line(t.Context()); err == nil {
		t.Errorf("with a broken proxy: %+v", l)
	}
	if d := time.Until(s.until); d <= 0 || d > failedFor {
		t.Errorf("asked again after %v", d)
	}
	broken, s.until = false, time.Time{}
	for range 2 {
		if l, err := s.Line(t.Context()); err != nil || l.Current != "go1.26.3" {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if d := time.Until(s.until); asked != 2 || d <= failedFor || d > listFor {
		t.Errorf("asked %d times; again after %v", asked, d)
	}
}

// fixed answers lookups from a map.
type fixed map[string]string

func (f fixed) Lookup(_ context.Context, key string) (tlog.Record, error) {
	text, ok := f[key]
	if !ok {
		return tlog.Record{}, tlog.ErrNotFound
	}
	return tlog.Record{Data: []byte(text)}, nil
}

// zipOf returns a small toolchain that says it is goVersion.
func zipOf(t *testing.T, moduleVersion, goVersion string) []byte {
	t.Helper()
	prefix := ModulePath + "@" + moduleVersion + "/"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range [][2]string{{"VERSION", goVersion + "\ntime x\n"}, {"bin/go", "#!"}, {"pkg/tool/x/compile", "#!"}, {"src/" + targetsFile, zosarch}, {"src/_go.mod", "module std\n"}, {"go.mod", "module golang.org/toolchain\n"}} {
		w, err := z.Create(prefix + f[0])
		if err == nil {
			_, err = io.WriteString(w, f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sumOf(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "zip")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	sum, err := dirhash.HashZip(file, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// A toolchain is unpacked only when its hash is the recorded one, its programs
// can run then, and a crash in the middle leaves nothing that is used.
func TestInstall(t *testing.T) {
	host := Target{runtime.GOOS, runtime.GOARCH}
	v := moduleVersion("go1.26.3", host)
	good, lie := zipOf(t, v, "go1.26.3"), zipOf(t, v, "go1.26.3 ")
	wrongVersion := zipOf(t, v, "go1.26.4")
	for _, tc := range []struct {
		name     string
		served   []byte
		recorded string
		ok       bool
		hash     bool
	}{
		{"good", good, sumOf(t, good), true, false},
		{"other bytes", lie, sumOf(t, good), false, true},
		{"says another version", wrongVersion, sumOf(t, wrongVersion), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, v+".zip") {
					http.NotFound(w, r)
					return
				}
				w.Write(tc.served)
			}))
			defer srv.Close()
			proxy, err := goproxy.New(srv.URL, http.DefaultClient)
			if err != nil {
				t.Fatal(err)
			}
			db := fixed{ModulePath + "@" + v: fmt.Sprintf("%s %s %s\n%s %s/go.mod h1:x\n", ModulePath, v, tc.recorded, ModulePath, v)}
			dir := t.TempDir()
			logger := slog.New(slog.DiscardHandler)
			s, err := Open(dir, &source.Source{Proxy: proxy, DB: db}, nil, logger)
			if err != nil {
				t.Fatal(err)
			}
			tc2, err := s.Get(t.Context(), "go1.26.3", nil)
			var hash *source.HashError
			if (err == nil) != tc.ok || errors.As(err, &hash) != tc.hash {
				t.Fatalf("%+v, %v", tc2, err)
			}
			if _, err := s.Get(t.Context(), "go1.26.99", nil); !errors.Is(err, ErrUnknown) {
				t.Errorf("unknown version: %v", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || (len(entries) == 2) != tc.ok || !tc.ok && len(entries) != 0 {
				t.Fatalf("%v, %v", entries, err)
			}
			if !tc.ok {
				return
			}
			for name, perm := range map[string]os.FileMode{"bin/go": 0o555, "pkg/tool/x/compile": 0o555, "VERSION": 0o444, "src/go.mod": 0o444} {
				if fi, err := os.Stat(filepath.Join(tc2.Root, name)); err != nil || fi.Mode().Perm() != perm {
					t.Errorf("%s: %v, %v", name, fi, err)
				}
			}
			// What a crash leaves is removed at the next start, what is whole is found again.
			if err := os.Mkdir(filepath.Join(dir, "new-123"), 0o755); err != nil {
				t.Fatal(err)
			}
			srv.Close()
			s, err = Open(dir, &source.Source{Proxy: proxy, DB: fixed{}}, nil, logger)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.Get(t.Context(), "go1.26.3", nil)
			if err != nil || again.Sum != tc.recorded || again.Root != tc2.Root {
				t.Errorf("after a restart: %+v, %v", again, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "new-123")); err == nil {
				t.Error("left-overs of a crash are still there")
			}
			// The only one is the newest and stays, however long it is unused.
			now := time.Now()
			if err := errors.Join(s.Trim(time.Hour, now), s.Trim(time.Hour, now.Add(2*time.Hour))); err != nil || len(s.Installed()) != 1 {
				t.Errorf("trimmed: %v, %v", s.Installed(), err)
			}
		})
	}
}

func TestOffered(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	s, err := Open(t.TempDir(), nil, []string{goRoot(t)}, logger)
	if err != nil {
		t.Fatal(err)
	}
	tc, err := s.Get(t.Context(), runtime.Version(), nil)
	if err != nil || !tc.Local() || len(tc.Targets) < 30 {
		t.Errorf("%+v, %v", tc, err)
	}
	if _, err := Open(t.TempDir(), nil, []string{t.TempDir()}, logger); err == nil {
		t.Error("an empty folder is a Go")
	}
}

// A disk that is full fails the installation and leaves nothing behind; with
// room it works.
func TestInstallDiskFull(t *testing.T) {
	v := moduleVersion("go1.26.3", Target{runtime.GOOS, runtime.GOARCH})
	data := zipOf(t, v, "go1.26.3")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(data) }))
	defer srv.Close()
	proxy, err := goproxy.New(srv.URL, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	db := fixed{ModulePath + "@" + v: fmt.Sprintf("%s %s %s\n%s %s/go.mod h1:x\n", ModulePath, v, sumOf(t, data), ModulePath, v)}
	for size := int64(4 << 10); ; size += 4 << 10 { // full while downloading, while unpacking, while naming
		disk, resize := logtest.SmallDisk(t, size)
		s, err := Open(disk, &source.Source{Proxy: proxy, DB: db}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Get(t.Context(), "go1.26.3", nil)
		if err == nil {
			if size <= 16<<10 {
				t.Errorf("it fits into %d bytes: nothing was tested", size)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrUnknown) {
			t.Fatalf("with %d bytes: %v", size, err)
		}
		if n := len(s.Installed()); n != 0 {
			t.Fatalf("with %d bytes: %d are installed", size, n)
		}
		left, err := filepath.Glob(filepath.Join(disk, "new-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("with %d bytes: left behind %v, %v", size, left, err)
		}
		resize(1 << 20)
		if tc, err := s.Get(t.Context(), "go1.26.3", nil); err != nil || tc.Version != "go1.26.3" {
			t.Fatalf("with room: %+v, %v", tc, err)
		}
	}
}
