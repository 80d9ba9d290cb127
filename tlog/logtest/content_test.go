package logtest

import (
	"math"
	"strings"
	"testing"

	"golang.org/x/mod/module"
)

// The shape of the content is what its documentation says.
func TestContent(t *testing.T) {
	c := Content{Spread: 3000}
	const n = 100_000
	seen, modules := map[string]int64{}, map[string]int{}
	var size int
	kinds := map[string]int{}
	var b []byte
	for i := range int64(n) {
		b = c.Append(b[:0], i)
		size += len(b) + 1
		path, rest, _ := strings.Cut(string(b), " ")
		version, rest, _ := strings.Cut(rest, " ")
		if err := module.Check(path, version); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if j, ok := seen[path+" "+version]; ok {
			t.Fatalf("records %d and %d are both of %s %s", i, j, path, version)
		}
		seen[path+" "+version] = i
		modules[path]++
		if _, second, _ := strings.Cut(rest, "\n"); !strings.HasPrefix(second, path+" "+version+"/go.mod h1:") {
			t.Fatalf("record %d is %q", i, b)
		}
		for name, is := range map[string]bool{
			"upper case":     strings.ToLower(path) != path,
			"+incompatible":  strings.HasSuffix(version, "+incompatible"),
			"pseudo-version": module.IsPseudoVersion(version),
			"pre-release":    strings.Contains(version, "-rc"),
			"/vN":            strings.Contains(path, "/v2"),
			"gopkg.in":       strings.HasPrefix(path, "gopkg.in/"),
			"not on github":  !strings.HasPrefix(path, "github.com/"),
			"toolchain":      path == "golang.org/toolchain",
			"long":           len(path) > 60,
		} {
			if is {
				kinds[name]++
			}
		}
	}
	if per := float64(n) / float64(len(modules)); per < 18 || per > 30 {
		t.Errorf("%d modules, %.1f records each; want about 24", len(modules), per)
	}
	if mean := float64(size) / n; mean < 170 || mean > 215 {
		t.Errorf("a record is %.0f bytes on average; want about 190", mean)
	}
	if len(kinds) != 9 {
		t.Errorf("only these kinds of names are there: %v", kinds)
	}
	t.Logf("%d modules, %.0f bytes a record, %v", len(modules), float64(size)/n, kinds)
}

func TestContentTime(t *testing.T) {
	var c Content
	last := int64(0)
	for i := int64(0); i < 72_000_000; i += 100_003 {
		now := c.Time(i)
		if now <= last {
			t.Fatalf("time goes back at record %d", i)
		}
		last = now
	}
	if years := float64(last-start) / (365 * 86400); math.Abs(years-7.75) > 0.1 {
		t.Errorf("the log spans %.2f years", years)
	}
}

func BenchmarkContent(b *testing.B) {
	var c Content
	var buf []byte
	for i := range int64(b.N) {
		buf = c.Append(buf[:0], i*7919%72_000_000)
		b.SetBytes(int64(len(buf)))
	}
}
