package builder

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"example.org/upkeep/tlog"
)

// An ecosystem is a module proxy with its checksum database, over HTTP.
type ecosystem struct {
	t   testing.TB
	url string
	key string // of the checksum database

	signer string

	mu     sync.Mutex
	log    *tlog.Log
	files  map[string][]byte     // by path below the proxy
	hold   chan struct{}         // answers wait until it is closed; nil: they don't
	broken func(path string) int // status to answer instead, 0 for none
	asked  map[string]int
}

func newEcosystem(t testing.TB) *ecosystem {
	t.Helper()
	signer, _, err := tlog.GenerateKey("sum.test")
	if err != nil {
		t.Fatal(err)
	}
	return newEcosystemWithKey(t, signer)
}

func newEcosystemWithKey(t testing.TB, signer string) *ecosystem {
	t.Helper()
	l, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e := &ecosystem{t: t, key: l.VerifierKey(), signer: signer, log: l, files: map[string][]byte{}, asked: map[string]int{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		data, ok := e.files[r.URL.Path]
		status := 0
		if e.broken != nil {
			status = e.broken(r.URL.Path)
		}
		hold, log := e.hold, e.log
		e.asked[r.URL.Path]++
		e.mu.Unlock()
		if hold != nil {
			<-hold
		}
		switch {
		case status != 0:
			http.Error(w, "broken", status)
		case strings.HasPrefix(r.URL.Path, "/sumdb/sum.test/"):
			http.StripPrefix("/sumdb/sum.test", log.Handler(nil)).ServeHTTP(w, r)
		case !ok:
			http.Error(w, "not found: no such module here", http.StatusNotFound)
		default:
			w.Write(data)
		}
	}))
	t.Cleanup(srv.Close)
	e.url = srv.URL
	return e
}

// setBroken makes the proxy answer errors.
func (e *ecosystem) setBroken(f func(path string) int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = f
}

// zipFile is a file of a module for modzip.Create.
type zipFile struct {
	name string
	data []byte
}

func (f zipFile) Path() string                 { return f.name }
func (f zipFile) Lstat() (os.FileInfo, error)  { return zipInfo{f}, nil }
func (f zipFile) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil }

type zipInfo struct{ zipFile }

func (i zipInfo) Name() string     { return path.Base(i.name) }
func (i zipInfo) Size() int64      { return int64(len(i.data)) }
func (zipInfo) Mode() os.FileMode  { return 0o644 }
func (zipInfo) ModTime() time.Time { return time.Time{} }
func (zipInfo) IsDir() bool        { return false }
func (zipInfo) Sys() any           { return nil }

// publish puts a version into the proxy and the database. files are marked
// with lines like "-- name --"; a go.mod is made when it has none.
func (e *ecosystem) publish(modPath, version, files string) {
	e.t.Helper()
	m := module.Version{Path: modPath, Version: version}
	goMod := []byte("module " + modPath + "\n\ngo 1.21\n")
	var list []modzip.File
	hasMod := false
	for part := range strings.SplitSeq("\n"+files, "\n-- ") {
		name, data, ok := strings.Cut(part, " --\n")
		if !ok {
			continue
		}
		f := zipFile{name, []byte(data + "\n")}
		if name == "go.mod" {
			goMod, hasMod = f.data, true
		}
		list = append(list, f)
	}
	if !hasMod {
		list = append(list, zipFile{"go.mod", goMod})
	}
	var z bytes.Buffer
	if err := modzip.Create(&z, m, list); err != nil {
		e.t.Fatal(err)
	}
	e.publishZip(m, goMod, z.Bytes())
}

func (e *ecosystem) publishZip(m module.Version, goMod, zip []byte) {
	e.t.Helper()
	file := filepath.Join(e.t.TempDir(), "zip")
	if err := os.WriteFile(file, zip, 0o644); err != nil {
		e.t.Fatal(err)
	}
	zipSum, err := dirhash.HashZip(file, dirhash.Hash1)
	if err != nil {
		e.t.Fatal(err)
	}
	modSum, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(goMod)), nil })
	if err != nil {
		e.t.Fatal(err)
	}
	escPath, err := module.EscapePath(m.Path)
	if err != nil {
		e.t.Fatal(err)
	}
	escVersion, err := module.EscapeVersion(m.Version)
	if err != nil {
		e.t.Fatal(err)
	}
	text := fmt.Sprintf("%s %s %s\n%s %s/go.mod %s\n", m.Path, m.Version, zipSum, m.Path, m.Version, modSum)
	if _, err := e.log.Append(e.t.Context(), tlog.Entry{Key: escPath + "@" + escVersion, Text: []byte(text)}); err != nil {
		e.t.Fatal(err)
	}
	base := "/" + escPath + "/@v/"
	e.mu.Lock()
	defer e.mu.Unlock()
	e.files[base+escVersion+".info"] = fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-02T03:04:05Z"}`, m.Version)
	e.files[base+escVersion+".mod"] = goMod
	e.files[base+escVersion+".zip"] = zip
	lines := strings.Fields(string(e.files[base+"list"]) + " " + m.Version)
	sort.Strings(lines)
	e.files[base+"list"] = []byte(strings.Join(lines, "\n") + "\n")
}

// set replaces a file of the proxy.
func (e *ecosystem) set(path string, data []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.files[path] = data
}

// gosumdb is the value of GOSUMDB for the database.
func (e *ecosystem) gosumdb() string { return e.key }

// plainInstall builds with the go command as a user would, with the machine's
// own build cache, and returns the binary.
func (e *ecosystem) plainInstall(pkgVersion, goos, goarch, ldflags string) []byte {
	e.t.Helper()
	dir := e.t.TempDir()
	root, cache := goEnv(e.t)
	cmd := exec.Command(filepath.Join(root, "bin", "go"), "install", "-trimpath", "-ldflags="+ldflags, "--", pkgVersion)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GOPATH=" + dir, "GOCACHE=" + cache,
		"GOFLAGS=-modcacherw", "GOPROXY=" + e.url, "GOSUMDB=" + e.gosumdb(), "CGO_ENABLED=0", "GOOS=" + goos, "GOARCH=" + goarch, "GOTOOLCHAIN=local", "GOENV=off", "GOWORK=off"}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("go install %s: %v\n%s", pkgVersion, err, out)
	}
	var found []byte
	err := filepath.WalkDir(filepath.Join(dir, "bin"), func(name string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found, err = os.ReadFile(name)
		}
		return err
	})
	if err != nil || found == nil {
		e.t.Fatalf("go install %s left no binary (%v)", pkgVersion, err)
	}
	return found
}

var askGo = sync.OnceValues(func() ([]string, error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOCACHE").Output()
	if s := strings.Split(strings.TrimSpace(string(out)), "\n"); err == nil && len(s) == 2 {
		return s, nil
	}
	return nil, fmt.Errorf("go env says %q, %v", out, err)
})

// goEnv returns the folder of the machine's Go and that of its build cache.
// Without a Go the test is skipped, or fails when UPKEEP_TEST_FULL is 1.
func goEnv(t testing.TB) (root, cache string) {
	t.Helper()
	env, err := askGo()
	if err != nil && os.Getenv("UPKEEP_TEST_FULL") == "1" {
		t.Fatalf("no go command says where it is: %v", err)
	} else if err != nil {
		t.Skipf("no go command says where it is: %v", err)
	}
	return strings.TrimSpace(env[0]), strings.TrimSpace(env[1])
}

func goRoot(t testing.TB) string {
	t.Helper()
	root, _ := goEnv(t)
	return root
}

// zipOf returns a zip with any names.
func zipOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(w, text)
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
