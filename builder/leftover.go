package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"example.org/upkeep/internal/durable"
)

// moment is how long a killed server's commands may take to be gone, with the
// lock that those have which were just being started, and to write no more.
const moment = 5 * time.Second

// lockFolder makes sure that no other service uses the folder. It tries for
// some time.
func lockFolder(dir string, patience time.Duration) (*durable.Locked, error) {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		l, err := durable.Lock(filepath.Join(dir, "lock"))
		if !errors.Is(err, durable.ErrLocked) {
			return l, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("another build service uses the folder %s", dir)
		}
	}
}

// removeLeftOvers removes what a server that was killed left behind, but for
// unfinished caches, which have a mark, and toolchains.
func (s *Service) removeLeftOvers() error {
	for end := time.Now().Add(moment); ; time.Sleep(50 * time.Millisecond) {
		err := removeAll(s.workDir)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("removing left-over builds: %w", err)
		}
	}
	for _, pattern := range []string{"results/??/*.tmp-*", "mismatches/*.tmp-*", "std/*.tmp-*", "deps/*.tmp-*"} { // durable.WriteFile's
		names, err := fs.Glob(os.DirFS(s.dir), pattern) // the folder's own name is no pattern
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.Remove(filepath.Join(s.dir, filepath.FromSlash(name))); err != nil {
				return fmt.Errorf("removing a half-written file: %w", err)
			}
		}
	}
	return nil
}

// removeAll removes a folder in which commands may have made others unreadable.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // what can't be changed shows in RemoveAll
		}
		return nil
	})
	return os.RemoveAll(dir)
}
