package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
