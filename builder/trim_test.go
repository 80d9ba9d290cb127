package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/builder/sandbox"
)

// Modules that were not used for longest go first; what is left stays whole.
func TestTrimModules(t *testing.T) {
	cache := t.TempDir()
	now := time.Now()
	write := func(name string, size int) {
		t.Helper()
		file := filepath.Join(cache, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, size), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range []string{"example.org/!a@v1.0.0", "example.org/!a@v1.1.0", "example.org/b/v2@v2.0.0+incompatible"} {
		write(m+"/x/y.go", 1000)
		write(m+"/z.go", 500)
		path, version, _ := strings.Cut(m, "@")
		base := "cache/download/" + path + "/@v/" + version
		write(base+".zip", 700)
		write(base+".ziphash", 40)
		write(base+".mod", 30)
		used := now.Add(-time.Duration([]int{1, 3, 2}[i]) * time.Hour)
		if err := os.Chtimes(filepath.Join(cache, filepath.FromSlash(m)), used, used); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(cache, filepath.FromSlash(m), "x"), 0o555); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (names []string) {
		t.Helper()
		list, err := modulesIn(cache)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.size != 2200 {
				t.Errorf("%s has %d bytes", c.dir, c.size)
			}
			rel, _ := filepath.Rel(cache, c.dir)
			names = append(names, filepath.ToSlash(rel))
		}
		return names
	}
	for _, tc := range []struct {
		max  int64
		want []string
	}{
		{6600, []string{"example.org/!a@v1.0.0", "example.org/!a@v1.1.0", "example.org/b/v2@v2.0.0+incompatible"}},
		{6599, []string{"example.org/!a@v1.0.0", "example.org/b/v2@v2.0.0+incompatible"}},
		{2500, []string{"example.org/!a@v1.0.0"}},
		{0, nil},
	} {
		if _, err := trimModules(cache, tc.max); err != nil {
			t.Fatal(err)
		}
		if got := left(); !slices.Equal(got, tc.want) {
			t.Errorf("at most %d bytes: %q are left; want %q", tc.max, got, tc.want)
		}
	}
	zips, _ := filepath.Glob(filepath.Join(cache, "cache", "download", "example.org", "*", "@v", "*.zip*"))
	if len(zips) > 0 {
		t.Errorf("left: %v", zips)
	}
}

// What a fetch leaves that was ended counts and goes as well: zips that were not
// unpacked, and parts of zips.
func TestTrimDownloads(t *testing.T) {
	cache := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"v1.0.0.zip", "v1.0.0.ziphash", "v1.1.0.zip123.tmp", "v1.1.0.mod", "list"} {
		file := filepath.Join(cache, "cache", "download", "example.org", "a", "@v", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, 1000), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	list, err := modulesIn(cache)
	if err != nil || totalOf(list) != 2000 {
		t.Fatalf("%d bytes, %v", totalOf(list), err)
	}
	if n, err := trimModules(cache, 0); n != 2 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "cache", "download", "example.org", "a", "@v", "*"))
	if err != nil || len(left) != 2 { // go.mod files and lists are small, and may be all that is needed
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAllowance(t *testing.T) {
	for _, tc := range []struct{ total, quota, free, floor, want int64 }{
		{1000, 0, 500, 100, 1000}, // no limit, and room
		{1000, 2000, 500, 100, 1000},
		{1000, 1000, 500, 100, 800}, // the quota
		{1000, 0, 99, 100, 899},     // what leaves 200 free
		{1000, 1000, 0, 50, 800},
		{1000, 1000, 10, 200, 610},
		{1000, 0, 0, 600, 0},
		{0, 0, 0, 600, 0},
		{1000, 0, 0, 0, 1000}, // no floor
	} {
		if got := allowance(tc.total, tc.quota, tc.free, tc.floor); got != tc.want {
			t.Errorf("allowance(%d, %d, %d, %d) = %d, want %d", tc.total, tc.quota, tc.free, tc.floor, got, tc.want)
		}
	}
}

// A build does not start when the disk is nearly full, and then what can be
// downloaded again makes room, whatever its quota.
func TestTrimForRoom(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{})
	if _, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/"); err != nil {
		t.Fatal(err)
	}
	unpacked := filepath.Join(ts.modCache, "example.org", "hello@v1.0.0")
	if _, err := os.Stat(unpacked); err != nil {
		t.Fatal(err)
	}
	ts.stop()
	// The second try waits until room was made.
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, change: func(c *Config) { c.DiskFree, c.Tries = 1<<30, 2 }})
	resp, body := ts.get(t, "GET", "/tlog/lookup/example.org/hello@v1.0.1/"+target()+"/")
	if resp.StatusCode != 500 || !strings.Contains(string(body), "too little free disk space") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, err := os.Stat(unpacked); err == nil {
		t.Error("a module that can be downloaded again is still there")
	}
}

// A command that leaves too little of the disk is ended: no folder of the build
// holds what it downloads.
func TestDiskLowEndsCommand(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	e := newEcosystem(t)
	ts := start(t, e, testOptions{change: func(c *Config) { c.DiskFree = 1 << 30 }})
	b := &build{s: ts.Service, dir: t.TempDir()}
	err = b.runGo(t.Context(), sandbox.Job{Args: []string{sleep, "120"}, Dir: b.dir, Output: io.Discard})
	if !errors.Is(err, errDiskLow) {
		t.Fatal(err)
	}
	if f := classify("", err, true); f.Permanent || !strings.Contains(f.Text, "nearly full") {
		t.Errorf("%+v", f)
	}
}

// The entries of a cache that were not used for longest go, with outputs that no other entry names.
func TestTrimCache(t *testing.T) {
	c := &stdCache{dir: t.TempDir()}
	now := time.Now()
	write := func(name, text string, age time.Duration) {
		t.Helper()
		file := filepath.Join(c.dir, name[:2], name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	output := func(s string) string {
		name := hash(s)
		write(name+"-d", s, 0)
		return name
	}
	shared := output("shared by the oldest and the newest")
	for i, out := range []string{shared, output("of the second"), output("of the third"), shared} {
		id := hash(fmt.Sprint("action", i))
		write(id+"-a", fmt.Sprintf("v1 %s %s %20d %20d\n", id, out, 10, 1), time.Duration(10-i)*time.Hour)
	}
	there := func(i int) bool {
		id := hash(fmt.Sprint("action", i))
		_, err := os.Stat(filepath.Join(c.dir, id[:2], id+"-a"))
		return err == nil
	}
	if n, err := c.trim(1<<20, 7); n != 0 || err != nil {
		t.Errorf("within its limits: %d, %v", n, err)
	}
	if n, err := c.trim(1<<20, 5); n != 3 || err != nil { // two entries, one output
		t.Errorf("removed %d, %v", n, err)
	}
	if there(0) || there(1) || !there(2) || !there(3) {
		t.Error("not those went that were not used for longest")
	}
	if _, err := os.Stat(filepath.Join(c.dir, shared[:2], shared+"-d")); err != nil {
		t.Errorf("an output that is still named: %v", err)
	}
	if _, err := c.trim(0, 0); err != nil {
		t.Error(err)
	}
	if size, count := c.sizeAndCount(); size != 0 || count != 0 {
		t.Errorf("left: %d bytes in %d files", size, count)
	}
}

// A service whose modules take more than their space gives it back between
// builds, and what went is fetched again.
func TestTrimBetweenBuilds(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.ModQuota = 1 }})
	first, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(ts.modCache, "example.org", "big@v1.0.0", "file")
	if err := os.MkdirAll(filepath.Dir(ballast), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o444); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Dir(ballast), old, old); err != nil {
		t.Fatal(err)
	}
	ts.measure()
	// It starts when there is room again.
	if _, err := ts.lookup(t, "example.org/hello@v1.0.1/"+target()+"/"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ballast); err == nil {
		t.Error("it is still there")
	}
	if _, err := os.Stat(filepath.Join(ts.modCache, "example.org", "hello@v1.0.0")); err != nil {
		t.Errorf("a module that was used is gone: %v", err)
	}
	if n, err := trimModules(ts.modCache, 0); err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	again := first.Spec
	again.Stripped = true
	if _, err := ts.lookup(t, again.String()); err != nil {
		t.Errorf("after all modules were removed: %v", err)
	}
}
