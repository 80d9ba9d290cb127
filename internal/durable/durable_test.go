package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state")
	for _, data := range []string{"one", "second, longer", ""} {
		if err := WriteFile(name, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != data {
			t.Fatalf("read %q, %v; want %q", got, err, data)
		}
	}
	fi, err := os.Stat(name)
	if err != nil || fi.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v, %v; want 0640", fi.Mode(), err)
	}
}

func TestFailedWriteKeepsOld(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	if err := WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := WriteTo(name, 0o600, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v; want boom", err)
	}
	if got, _ := os.ReadFile(name); string(got) != "old" {
		t.Fatalf("read %q; want the old content", got)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Fatalf("the folder holds %v; want the file alone", es)
	}
}

func TestSymlinkAndClean(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "service")
	for _, target := range []string{"service-v1", "service-v2"} {
		if err := Symlink(target, name); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(name); err != nil || got != target {
			t.Fatalf("points at %q, %v; want %q", got, err, target)
		}
	}
	for _, left := range []string{name + ".tmp-1", name + ".tmp-2"} {
		if err := os.WriteFile(left, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(name); err != nil {
		t.Fatal(err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Fatalf("the folder holds %v; want the link alone", es)
	}
}

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(name); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v; want ErrLocked", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = Lock(name)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	_ = l.Unlock()
}
