package tlog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	ct "golang.org/x/mod/sumdb/tlog"
)

// A TileDir keeps tiles on disk in the layout of the protocol. Nothing in it
// is believed: whoever reads a tile checks it against a signed tree head, and
// a damaged tile is fetched again. So files are written whole (under another
// name, then renamed), yet not synced one by one.
type TileDir struct {
	dir    string
	log    *slog.Logger
	broken atomic.Bool // a write failed and was reported
}

// OpenTileDir returns the tiles in a folder, which is made if needed.
func OpenTileDir(dir string, log *slog.Logger) (*TileDir, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for tiles: %w", err)
	}
	if log == nil {
		log = slog.Default()
	}
	return &TileDir{dir: dir, log: log}, nil
}

func (d *TileDir) file(t ct.Tile) string {
	return filepath.Join(d.dir, filepath.FromSlash(t.Path()))
}

// read returns a tile, or fs.ErrNotExist.
func (d *TileDir) read(t ct.Tile, max int64) ([]byte, error) { return readFile(d.file(t), max) }

// save keeps a tile. Keeping tiles saves work later and is not needed for
// anything now: on a full disk the caller goes on without.
func (d *TileDir) save(t ct.Tile, data []byte) {
	err := d.write(d.file(t), data)
	switch {
	case err != nil && !d.broken.Swap(true):
		d.log.Error("tiles can't be kept on disk; going on without keeping them", "dir", d.dir, "err", err)
	case err == nil && d.broken.Swap(false):
		d.log.Info("tiles are kept on disk again", "dir", d.dir)
	}
	if err == nil && t.W == tileWidth {
		// The full tile starts with what the partial ones held.
		os.RemoveAll(d.file(t) + ".p")
	}
}

func (d *TileDir) write(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tile-*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(name), ".tile-*")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// drop removes a tile that proved damaged.
func (d *TileDir) drop(t ct.Tile) { os.Remove(d.file(t)) }

// saveHead keeps a signed tree head when its records were read through the
// folder, so that the folder is a log of its own that others can read.
func (d *TileDir) saveHead(head TreeHead) error {
	return d.write(filepath.Join(d.dir, "latest"), head.Note)
}
