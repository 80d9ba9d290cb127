package builder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/builder/spec"
)

// aged sets the times of a file or link.
func aged(t *testing.T, name string, at time.Time) {
	t.Helper()
	ts := unix.NsecToTimespec(at.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
}

// Entries count as used when they are read through a build's links.
func TestUsed(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	c := &stdCache{dir: filepath.Join(dir, "shared")}
	private := filepath.Join(dir, "private")
	for _, name := range []string{"00/read-a", "00/unread-a", "ff/read-a"} {
		file, link := filepath.Join(c.dir, name), filepath.Join(private, name)
		for _, d := range []string{filepath.Dir(file), filepath.Dir(link)} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, []byte(name), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		aged(t, file, old)
		aged(t, link, old)
		if strings.Contains(name, "/read") {
			if _, err := os.ReadFile(link); err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Lstat(link); err != nil || !wasRead(fi) {
				t.Skipf("this file system does not note when a link was read (noatime): %v", err)
			}
		}
	}
	c.touch(private)
	for name, want := range map[string]bool{"00/read-a": true, "00/unread-a": false, "ff/read-a": true} {
		fi, err := os.Stat(filepath.Join(c.dir, name))
		if err != nil || fi.ModTime().After(old) != want {
			t.Errorf("%s: %v, %v", name, fi.ModTime(), err)
		}
	}
}

// The same with a build in the sandbox: what it took of the shared packages is
// as new, what it did not need is as old as before.
func TestUsedByBuild(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.publish("example.org/other", "v1.0.0", "-- main.go --\npackage main\n\nimport \"example.org/other/p\"\n\nfunc main() { p.P() }\n-- p/p.go --\npackage p\n\nfunc P() { println(\"other\") }\n")
	ts := start(t, e, testOptions{confined: true})
	build := func(moduleVersion string) {
		t.Helper()
		sp, err := spec.Parse(moduleVersion + "/" + target() + "/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ts.lookup(t, sp.String()); err != nil {
			t.Fatal(err)
		}
	}
	build("example.org/hello@v1.0.0")
	build("example.org/other@v1.0.0")
	ts.stop() // after that everything is shared
	entries, err := filepath.Glob(filepath.Join(ts.dir, "deps", "*", "??", "*-a"))
	if err != nil || len(entries) < 2 {
		t.Fatalf("shared: %v, %v", entries, err)
	}
	old := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	for _, name := range entries {
		aged(t, name, old)
	}
	ts = start(t, e, testOptions{confined: true, dir: ts.dir, key: ts.key})
	build("example.org/hello@v1.0.1") // needs example.org/dep, as v1.0.0 did
	ts.stop()
	used := 0
	for _, name := range entries {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if fi.ModTime().After(old) {
			used++
		}
	}
	if used == 0 {
		probe := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink("/", probe); err != nil {
			t.Fatal(err)
		}
		aged(t, probe, old)
		if _, err := os.Stat(probe); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(probe); err != nil || !wasRead(fi) {
			t.Skipf("this file system does not note when a link was read (noatime): %v", err)
		}
	}
	if used == 0 || used == len(entries) {
		t.Errorf("%d of %d count as used", used, len(entries))
	}
}
