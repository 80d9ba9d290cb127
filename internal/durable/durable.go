// Package durable writes files that survive a crash at any instant.
//
// A file written here is either the old one or the new one, complete, after a
// SIGKILL or a power cut: it is written under a temporary name in the same
// folder, synced, renamed over the old name, and the folder is synced. A crash
// can leave a temporary file behind (its name starts with the target's name
// and ".tmp-"); [Clean] removes those.
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

const tmpInfix = ".tmp-"

// WriteFile replaces the file called name with data, atomically and durably.
func WriteFile(name string, data []byte, perm fs.FileMode) error {
	return WriteTo(name, perm, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(data))
		return err
	})
}

// WriteTo replaces the file called name with what write writes, atomically and
// durably. When write fails the old file stays as it was.
func WriteTo(name string, perm fs.FileMode, write func(io.Writer) error) (err error) {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	if err := Try("create", name); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	f, err := os.CreateTemp(dir, base+tmpInfix+"*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			_ = os.Remove(tmp)
		}
	}()
	if err = Try("write", name); err == nil {
		err = write(f)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := f.Chmod(perm); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := syncFile(f); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := Rename(tmp, name); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// A Watcher is told of each step: when a file or a folder was synced ("sync",
// "syncdir"), and before a rename ("rename"). Tests lose power there, since what
// was not synced by then may be gone.
type Watcher func(step, name string)

var watcher atomic.Pointer[Watcher]

// Watch has the watcher told of every step in this process, nil nobody.
func Watch(w Watcher) {
	if w == nil {
		watcher.Store(nil)
		return
	}
	watcher.Store(&w)
}

// A Breaker is asked before each step that a full disk can refuse, and its error
// becomes that of the step. Tests fill disks with it.
type Breaker func(step, name string) error

var breaker atomic.Pointer[Breaker]

// Break has the breaker asked in this process, nil nobody.
func Break(b Breaker) {
	if b == nil {
		breaker.Store(nil)
		return
	}
	breaker.Store(&b)
}

// Try asks the breaker; whoever writes by itself calls it before.
func Try(step, name string) error {
	if b := breaker.Load(); b != nil {
		return (*b)(step, name)
	}
	return nil
}

func step(step, name string) {
	if w := watcher.Load(); w != nil {
		(*w)(step, name)
	}
}

func syncFile(f *os.File) error {
	if err := Try("sync", f.Name()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	step("sync", f.Name())
	return nil
}

// SyncFile makes what a file is and holds durable.
func SyncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncFile(f)
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	if err := Try("syncdir", dir); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	step("syncdir", dir)
	return nil
}

// Rename renames a file and makes the new name durable.
func Rename(old, new string) error {
	step("rename", new)
	if err := Try("rename", new); err != nil {
		return err
	}
	if err := os.Rename(old, new); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(new))
}

// Symlink makes the symbolic link called name point at target, atomically and
// durably, replacing a link that is there.
func Symlink(target, name string) error {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	if err := Try("create", name); err != nil {
		return fmt.Errorf("linking %s: %w", name, err)
	}
	// os.Symlink has no O_TMPFILE sibling: a folder of our own gives a name that nobody else uses.
	tmpDir, err := os.MkdirTemp(dir, base+tmpInfix+"*")
	if err != nil {
		return fmt.Errorf("linking %s: %w", name, err)
	}
	defer os.RemoveAll(tmpDir)
	tmp := filepath.Join(tmpDir, base)
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("linking %s: %w", name, err)
	}
	if err := Rename(tmp, name); err != nil {
		return fmt.Errorf("linking %s: %w", name, err)
	}
	return nil
}

// Clean removes what interrupted writes of the file called name left behind.
// No other process may be writing that file.
func Clean(name string) error {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing left-over files: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+tmpInfix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("removing left-over files: %w", err)
			}
		}
	}
	return nil
}

// ErrLocked is returned by [Lock] when another process holds the lock.
var ErrLocked = errors.New("locked by another process")
