package builder

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// removeLeftOvers removes what a server that was killed left behind, but for
// unfinished caches, which have a mark, and toolchains.
func (s *Service) removeLeftOvers() error {
	// The kernel ends the commands of a killed server, which may take a moment;
	// until then they make new files.
	var err error
	for range 50 {
		if err = removeAll(s.workDir); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("removing left-over builds: %w", err)
	}
	for _, pattern := range []string{"results/??/*.tmp-*", "mismatches/*.tmp-*", "std/*.tmp-*", "deps/*.tmp-*"} { // durable.WriteFile's
		names, err := filepath.Glob(filepath.Join(s.dir, filepath.FromSlash(pattern)))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
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
