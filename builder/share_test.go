package builder

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// entry returns an index entry and the output's name for a content.
func entry(id [32]byte, content []byte) (index []byte, output string) {
	sum := sha256.Sum256(content)
	return fmt.Appendf(nil, "v1 %x %x %20d %20d\n", id, sum, len(content), int64(1234567890123456789)), hex.EncodeToString(sum[:])
}

// object returns a compiled package with a right build id.
func object(id [32]byte, text string) []byte {
	zero := strings.Repeat("\x00", 41)
	make_ := func(buildID string) []byte {
		return []byte("!<arch>\n__.PKGDEF       0           0     0     644     100       `\ngo object linux amd64 go1.26.8 X:none\nbuild id \"" + buildID + "\"\n" + text + buildID)
	}
	sum := sha256.Sum256(make_(zero))
	return make_(shortHash(id[:]) + "/" + shortHash(sum[:]))
}

func TestCheckOutput(t *testing.T) {
	id, other := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	obj := object(id, "text")
	changed := bytes.Replace(obj, []byte("text"), []byte("evil"), 1)
	for _, tc := range []struct {
		name    string
		id      [32]byte
		content []byte
		stored  []byte
		ok      bool
	}{
		{"package", id, obj, obj, true},
		{"package of another action", other, obj, obj, false},
		{"changed package under its own hash", id, changed, changed, false},
		{"changed package", id, obj, changed, false},
		{"package without id", id, []byte("!<arch>\nnothing"), []byte("!<arch>\nnothing"), false},
		{"text", id, []byte("stdout"), []byte("stdout"), true},
		{"empty", id, nil, nil, true},
		{"cut", id, []byte("stdout"), []byte("stdou"), false},
		{"program", id, []byte("\x7fELF..."), []byte("\x7fELF..."), false},
	} {
		index, _ := entry(tc.id, tc.content)
		a, err := parseAction(hex.EncodeToString(tc.id[:]), index)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err := checkOutput(a, tc.stored); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// The check accepts what the real go command leaves in its cache: all but programs.
func TestShareableReal(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"go.mod": "module example.org/x\n", "main.go": "package main\n\nimport \"example.org/x/y\"\n\nfunc main() { y.Y() }\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(src, "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "y", "y.go"), []byte("package y\n\nfunc Y() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "cache")
	cmd := exec.Command(filepath.Join(goRoot(t), "bin", "go"), "build", "-trimpath", "-o", filepath.Join(dir, "out"), "./y")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOCACHE="+cache, "CGO_ENABLED=0", "GOFLAGS=", "GOTOOLCHAIN=local", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := shareable(cache)
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(cache, f))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte("!<arch>\n")) {
			packages++
		}
	}
	if packages != 1 {
		t.Errorf("%d packages among %d files", packages, len(files))
	}
}

func FuzzParseAction(f *testing.F) {
	id := sha256.Sum256([]byte("a"))
	index, _ := entry(id, []byte("content"))
	f.Add(hex.EncodeToString(id[:]), index)
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		a, err := parseAction(name, data)
		if err != nil {
			return
		}
		if a.id != name || len(a.output) != 64 || a.size < 0 || a.size > maxShared {
			t.Fatalf("%q %q: %+v", name, data, a)
		}
	})
}
