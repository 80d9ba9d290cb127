package logtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	ct "golang.org/x/mod/sumdb/tlog"
)

// WriteTiles writes the log as files in the layout of the protocol: the signed
// tree head, data tiles, and hash tiles but for those of the lowest level,
// which can be computed from the data tiles.
func (s *Server) WriteTiles(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	next := make(chan ct.Tile, 64)
	errs := make(chan error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for range cap(errs) {
		wg.Go(func() {
			var failed error
			for t := range next {
				if failed == nil {
					failed = writeFile(filepath.Join(dir, filepath.FromSlash(t.Path())), s.tree.tile(t, s.size))
				}
			}
			errs <- failed
		})
	}
	for level := -1; s.size>>(8*max(level, 0)) > 0; level++ {
		if level == 0 && s.size > tileWidth {
			continue
		}
		count := s.size >> (8 * max(level, 0))
		for n := int64(0); n*tileWidth < count; n++ {
			next <- ct.Tile{H: 8, L: level, N: n, W: int(min(tileWidth, count-n*tileWidth))}
		}
	}
	if w := s.size % tileWidth; w > 0 && s.size > tileWidth {
		next <- ct.Tile{H: 8, L: 0, N: s.size / tileWidth, W: int(w)}
	}
	close(next)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fmt.Errorf("writing tiles: %w", err)
		}
	}
	return writeFile(filepath.Join(dir, "latest"), s.latest)
}

func writeFile(name string, data []byte) error {
	err := os.WriteFile(name, data, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o755); err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
	}
	return err
}
