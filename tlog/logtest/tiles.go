package logtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	ct "golang.org/x/mod/sumdb/tlog"
)

// WriteTiles makes a log of a content as files in the layout of the protocol:
// the signed tree head, data tiles, and hash tiles but for full ones of the
// lowest level, which can be computed from the data tiles. It returns the key
// that clients configure.
func WriteTiles(dir string, c Content, size int64) (verifierKey string, err error) {
	var mu sync.Mutex
	write := func(t ct.Tile, data []byte) {
		if failed := writeFile(filepath.Join(dir, filepath.FromSlash(t.Path())), data); failed != nil {
			mu.Lock()
			defer mu.Unlock()
			err = failed
		}
	}
	s, err2 := newServer("", c)
	if err2 != nil {
		return "", err2
	}
	// Records are made once, for their hashes and for the files.
	s.tree.made = func(n int64, data []byte) { write(ct.Tile{H: 8, L: -1, N: n, W: tileWidth}, data) }
	if err := s.SetSize(size); err != nil {
		return "", err
	}
	s.tree.made = nil
	for level := -1; size>>(8*max(level, 0)) > 0; level++ {
		count := size >> (8 * max(level, 0))
		n := int64(0)
		if level <= 0 {
			n = count / tileWidth // the partial one
		}
		for ; n*tileWidth < count; n++ {
			t := ct.Tile{H: 8, L: level, N: n, W: int(min(tileWidth, count-n*tileWidth))}
			write(t, s.tree.tile(t, size))
		}
	}
	if err == nil {
		err = writeFile(filepath.Join(dir, "latest"), s.latest)
	}
	if err != nil {
		return "", fmt.Errorf("writing tiles: %w", err)
	}
	return s.verifier, nil
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
