package toolchain

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/goproxy"
)

const killedVersion = "go1.26.3"

// SIGKILL while a toolchain is installed, at each boundary: the next start uses
// all of it or nothing, leaves nothing else, and installs it whole.
func TestInstallKilled(t *testing.T) {
	if dir := os.Getenv("UPKEEP_TEST_KILL_DIR"); dir != "" {
		installer(t, dir)
		return
	}
	v := moduleVersion(killedVersion, Target{runtime.GOOS, runtime.GOARCH})
	data := bigZip(t, v)
	sum := sumOf(t, data)
	var hold atomic.Bool           // only half of the zip is sent
	half := make(chan struct{}, 1) // that was done
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, v+".zip") {
			http.NotFound(w, r)
			return
		}
		if !hold.Load() {
			w.Write(data)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		half <- struct{}{}
		<-r.Context().Done()
	}))
	defer srv.Close()
	store := func(dir string) *Store {
		s, err := openKilled(dir, srv.URL, sum)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	whole, err := store(t.TempDir()).Get(t.Context(), killedVersion, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := listing(t, whole.Root)

	// run installs in another process until at returns, and looks at what the next start makes of it.
	run := func(t *testing.T, stop string, at func(dir string, lines <-chan string)) (installed bool) {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestInstallKilled$")
		cmd.Env = append(os.Environ(), "UPKEEP_TEST_KILL_DIR="+dir, "UPKEEP_TEST_KILL_PROXY="+srv.URL, "UPKEEP_TEST_KILL_SUM="+sum, "UPKEEP_TEST_KILL_AT="+stop)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			defer close(lines)
			for sc := bufio.NewScanner(out); sc.Scan(); {
				lines <- sc.Text()
			}
		}()
		if l := <-lines; l != "starts" {
			t.Errorf("the installing process says %q", l)
		}
		at(dir, lines)
		cmd.Process.Kill()
		for range lines {
		}
		cmd.Wait()

		s := store(dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		list := s.Installed()
		if len(list) > 1 || len(entries) != 2*len(list) {
			t.Errorf("after a start: %v, installed %v", entries, list)
		}
		again, err := s.Get(t.Context(), killedVersion, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 && list[0].Root != again.Root {
			t.Errorf("%s and %s", list[0].Root, again.Root)
		}
		if got := listing(t, again.Root); again.Sum != sum || got != want {
			t.Errorf("installed %s:\n%s\nwant %s:\n%s", again.Sum, got, sum, want)
		}
		return len(list) == 1
	}
	untilLine := func(t *testing.T, text string) func(string, <-chan string) {
		return func(_ string, lines <-chan string) {
			for l := range lines {
				if l == text {
					return
				}
			}
			t.Errorf("it ended before it said %q", text)
		}
	}
	// A file that comes and goes: when it was missed, the kill hits a later moment.
	untilFile := func(t *testing.T, pattern string, is func(os.FileInfo) bool) func(string, <-chan string) {
		return func(dir string, lines <-chan string) {
			for {
				names, _ := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
				for _, name := range names {
					if fi, err := os.Lstat(name); err == nil && is(fi) {
						return
					}
				}
				select {
				case l, ok := <-lines:
					if l == "installed" {
						return
					}
					if !ok {
						t.Fatal("the installing process ended by itself")
					}
				default:
				}
			}
		}
	}
	exists := func(os.FileInfo) bool { return true }
	readOnly := func(fi os.FileInfo) bool { return fi.Mode().Perm() == 0o444 }
	hex := dirOf(sum)
	for _, tc := range []struct {
		name, stop string // where the process itself stops and says so
		at         func(string, <-chan string)
		installed  bool
	}{
		{"before unpacking", "Verified", nil, false},
		{"unpacking", "", untilFile(t, "new-*/root/bin/go", exists), false},
		{"setting modes", "", untilFile(t, "new-*/root/VERSION", readOnly), false},
		{"syncing", "", untilFile(t, "new-*/root/src/"+targetsFile, readOnly), false},
		{"before the rename", "rename " + hex, nil, false},
		{"after the rename", "syncdir .", nil, false},
		{"writing the name", "sync " + killedVersion + ".json.tmp-*", nil, false},
		{"before the name", "rename " + killedVersion + ".json", nil, false},
		{"when it is done", "", func(_ string, lines <-chan string) { untilLine(t, "installed")("", lines) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.at == nil {
				tc.at = untilLine(t, "stopped")
			}
			exact := tc.stop != "" || tc.installed
			if got := run(t, tc.stop, tc.at); exact && got != tc.installed {
				t.Errorf("installed: %v", got)
			}
		})
	}
	t.Run("half of the zip", func(t *testing.T) {
		hold.Store(true)
		if run(t, "", func(string, <-chan string) {
			<-half
			hold.Store(false)
		}) {
			t.Error("installed")
		}
	})
	t.Run("any instant", func(t *testing.T) {
		if os.Getenv("UPKEEP_TEST_LONG") != "1" {
			t.Skip("UPKEEP_TEST_LONG=1 kills at many random instants")
		}
		started := time.Now()
		run(t, "", untilLine(t, "installed"))
		whole := time.Since(started)
		for range 100 {
			d := time.Duration(rand.Int64N(int64(whole)))
			run(t, "", func(_ string, lines <-chan string) {
				for after := time.After(d); ; {
					select {
					case _, ok := <-lines:
						if !ok {
							t.Fatal("the installing process ended by itself")
						}
					case <-after:
						return
					}
				}
			})
			if t.Failed() {
				t.Fatalf("killed after %v", d)
			}
		}
	})
}

// installer is the process that is killed.
func installer(t *testing.T, dir string) {
	stop := os.Getenv("UPKEEP_TEST_KILL_AT")
	stopped := func() {
		fmt.Println("stopped")
		time.Sleep(time.Hour)
	}
	fmt.Println("starts")
	s, err := openKilled(dir, os.Getenv("UPKEEP_TEST_KILL_PROXY"), os.Getenv("UPKEEP_TEST_KILL_SUM"))
	if err != nil {
		t.Fatal(err)
	}
	durable.Watch(func(step, name string) {
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := filepath.Match(stop, step+" "+filepath.ToSlash(rel)); ok {
			stopped()
		}
	})
	_, err = s.Get(t.Context(), killedVersion, func(l string) {
		if stop != "" && strings.HasPrefix(l, stop) {
			stopped()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("installed")
	time.Sleep(time.Hour)
}

func openKilled(dir, url, sum string) (*Store, error) {
	proxy, err := goproxy.New(url, http.DefaultClient)
	if err != nil {
		return nil, err
	}
	v := moduleVersion(killedVersion, Target{runtime.GOOS, runtime.GOARCH})
	db := fixed{ModulePath + "@" + v: fmt.Sprintf("%s %s %s\n%s %s/go.mod h1:x\n", ModulePath, v, sum, ModulePath, v)}
	return Open(dir, &source.Source{Proxy: proxy, DB: db}, nil, slog.New(slog.DiscardHandler))
}

// bigZip returns a toolchain that takes a moment to unpack.
func bigZip(t *testing.T, moduleVersion string) []byte {
	t.Helper()
	small := zipOf(t, moduleVersion, killedVersion)
	r, err := zip.NewReader(bytes.NewReader(small), int64(len(small)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range r.File {
		if err := z.Copy(f); err != nil {
			t.Fatal(err)
		}
	}
	prefix := ModulePath + "@" + moduleVersion + "/"
	for i := range 200 {
		w, err := z.Create(fmt.Sprintf("%ssrc/f%d.go", prefix, i))
		if err == nil {
			_, err = fmt.Fprintf(w, "package f // %d\n", i)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := z.Create(prefix + "pkg/tool/x/link")
	if err == nil {
		_, err = io.CopyN(w, rand.NewChaCha8([32]byte{}), 4<<20)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// listing describes every file below a folder: name, mode and content.
func listing(t *testing.T, root string) string {
	t.Helper()
	sum, err := dirhash.HashDir(root, "x", dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintln(&b, sum)
	err = filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		fmt.Fprintln(&b, fi.Mode(), rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
