package install

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func content(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSwitchLink(t *testing.T) {
	dir := t.TempDir()
	p := At(filepath.Join(dir, "hello"))
	one, two := write(t, p.File("hello-v1"), "one", 0o755), write(t, p.File("hello-v2"), "two", 0o755)
	for _, file := range []string{one, two, two, one} { // also where there is no name yet
		if err := p.Switch(file); err != nil {
			t.Fatal(err)
		}
		if cur, link, err := p.Current(); cur != file || !link || err != nil {
			t.Fatalf("stands for %s, %v, %v; want %s", cur, link, err, file)
		}
		if target, _ := os.Readlink(p.Path); target != filepath.Base(file) {
			t.Errorf("the link says %q; want a name that survives moving the folder", target)
		}
	}
	if kept, err := p.Keep("hello-other"); err != nil || kept != one {
		t.Errorf("kept as %s, %v; the file has a name already", kept, err)
	}
	if err := p.Remove(one); err != nil || content(t, one) != "one" {
		t.Errorf("the file in use was removed: %v", err)
	}
	if err := p.Remove(two); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(two); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v; want the file gone", err)
	}
	// A link that leads nowhere still says what it stands for.
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	if cur, link, err := p.Current(); cur != one || !link || err != nil {
		t.Errorf("dangling: %s %v %v", cur, link, err)
	}
}

// A service's path that is no symlink is replaced in place, and the old binary
// stays under a name of its own.
func TestSwitchInPlace(t *testing.T) {
	dir := t.TempDir()
	p := At(write(t, filepath.Join(dir, "hello"), "one", 0o755))
	kept, err := p.Keep("hello-v1")
	if err != nil || content(t, kept) != "one" {
		t.Fatalf("kept as %s, %v", kept, err)
	}
	two := write(t, p.File("hello-v2"), "two", 0o755)
	if err := p.Switch(two); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(p.Path); err != nil || !fi.Mode().IsRegular() || content(t, p.Path) != "two" || !p.Uses(two) {
		t.Errorf("after the switch: %v, %q", err, content(t, p.Path))
	}
	if err := p.Switch(kept); err != nil || content(t, p.Path) != "one" || content(t, two) != "two" {
		t.Errorf("back: %v, %q", err, content(t, p.Path))
	}
	if es, _ := os.ReadDir(dir); len(es) != 3 {
		t.Errorf("the folder holds %v", es)
	}
}

func TestClean(t *testing.T) {
	dir := t.TempDir()
	p := At(write(t, filepath.Join(dir, "hello"), "one", 0o755))
	for _, name := range []string{"hello-v1.0.2-go1.26.8.tmp-123", "hello.tmp-switch", "hello-v1.0.0-go1.26.8-stripped.tmp-link", "hello-_devel_-go1.26.8.tmp-1"} {
		write(t, p.File(name), "half", 0o600)
	}
	others := []string{"hello-v1", "other.tmp-1", "hell.tmp-2", "hello2.tmp-1", "hello2-v1.0.0-go1.26.8.tmp-1", "hello-world-v1.0.0-go1.26.8.tmp-1",
		"hello-v2-v1.0.0-go1.26.8.tmp-1", "hello-world.tmp-switch", "hello-v1.0.0-go1.26.8"}
	for _, name := range others {
		write(t, p.File(name), "not ours to remove", 0o600)
	}
	if err := p.Clean(); err != nil {
		t.Fatal(err)
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1+len(others) {
		t.Errorf("left: %v, %v; want hello and %v", es, err, others)
	}
}

func TestLikeOldAndCheck(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := t.TempDir()
	old, file := write(t, filepath.Join(dir, "old"), "old", 0o640), write(t, filepath.Join(dir, "new"), "new", 0o600)
	if what := Privileges(old); what != "" {
		t.Errorf("it has %s", what)
	}
	if err := os.Chmod(old, 0o640|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if what := Privileges(old); what != "a set-user-id or set-group-id bit" {
		t.Errorf("it has %q", what)
	}
	if err := LikeOld(file, old); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o750 {
		t.Errorf("mode %v, %v; want 0750, executable for whoever reads and without set-user-id", fi.Mode(), err)
	}
	sum, size, err := Sum(file)
	if err != nil || size != 3 {
		t.Errorf("sum %s of %d bytes, %v", sum, size, err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := CheckOpen(f, sum); err != nil {
		t.Error(err)
	}
	write(t, file, "nEw", 0o750)
	changed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Close()
	if CheckOpen(changed, sum) == nil {
		t.Error("a changed file passes")
	}
}

func TestRoom(t *testing.T) {
	p := At(filepath.Join(t.TempDir(), "hello"))
	if err := p.Room(1); err != nil {
		t.Errorf("no room for a byte: %v", err)
	}
	var space *SpaceError
	if err := p.Room(1 << 60); runtime.GOOS == "linux" && !errors.As(err, &space) {
		t.Errorf("room for an exabyte: %v", err)
	}
}
