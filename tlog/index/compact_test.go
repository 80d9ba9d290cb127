package index_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"example.org/upkeep/tlog/index"
)

// A file is written anew once it is mostly free; who reads the old one goes on.
func TestCompact(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is mapped can't be replaced on Windows")
	}
	srv, url := serve(t, small, 20_000)
	c := client(t, srv, url)
	dir := t.TempDir()
	file := filepath.Join(dir, "index.db")
	if err := os.WriteFile(file+".new", []byte("what a crash left"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := index.Options{JournalPeriod: time.Nanosecond} // the journal is what is free in the end
	s := open(t, file, opts)
	if _, err := os.Stat(file + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	follow(t, s, c)
	s.Close()
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}

	// It is read through a symbolic link, by this process and as by another one.
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink("index.db", link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	s = open(t, link, opts.CompactAt(4<<10))
	r := open(t, link, index.Options{ReadOnly: true})
	want := dump(t, r)
	changed := s.Changed()
	srv.SetSize(20_100)
	follow(t, s, c)
	<-changed
	after, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) || after.Size() > before.Size()/2 || after.Mode().Perm() != 0o640 {
		t.Errorf("the file of %d bytes was not written anew: %d bytes, %v", before.Size(), after.Size(), after.Mode())
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
	if got := dump(t, r); got != want {
		t.Errorf("who reads the old file reads something else: %s", difference(got, want))
	}
	if err := errors.Join(r.Verify(), r.Close(), s.Verify()); err != nil {
		t.Error(err)
	}
	// The new file is written to as the old one was.
	srv.SetSize(30_000)
	follow(t, s, c)
	want = func() string {
		one := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
		follow(t, one, c)
		return dump(t, one)
	}()
	if got := dump(t, s); got != want {
		t.Errorf("the new file differs: %s", difference(got, want))
	}
	s.Close()
	s = open(t, file, opts)
	if got := dump(t, s); got != want {
		t.Errorf("opened again, it differs: %s", difference(got, want))
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}

// A process that dies while it replaces the file leaves a whole index.
func TestKillCompacting(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is mapped can't be replaced on Windows")
	}
	srv, url := serve(t, small, 20_000)
	c := client(t, srv, url)
	one := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
	follow(t, one, c)
	want := dump(t, one)
	for _, step := range []string{"rename", "syncdir"} {
		dir := t.TempDir()
		env, err := json.Marshal(crashJob{Key: srv.VerifierKey(), URL: url, Dir: dir, Tiles: t.TempDir(), Die: step})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+string(env))
		var exit *exec.ExitError
		if out, err := cmd.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("%s: the process was not killed: %v\n%s", step, err, out)
		}
		_, err = os.Stat(filepath.Join(dir, "index.db.new"))
		if (err == nil) != (step == "rename") {
			t.Errorf("%s: the new file: %v", step, err)
		}
		s := open(t, filepath.Join(dir, "index.db"), index.Options{})
		if err := s.Verify(); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		follow(t, s, c)
		if got := dump(t, s); got != want {
			t.Errorf("%s: the index differs: %s", step, difference(got, want))
		}
		s.Close()
	}
}
