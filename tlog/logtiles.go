package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/durable"
)

// dataLevel is the level of data tiles in [ct.Tile].
const dataLevel = -1

// A treeWriter grows a tree and writes its full tiles.
type treeWriter struct {
	dir   string
	log   *slog.Logger
	check bool              // at the start: full tiles are on disk already, only missing ones are written
	visit func(tileContent) // gets full tiles instead, which are not written

	edge    Edge
	data    []byte   // of the data tile in progress
	levels  [][]byte // of the hash tile in progress, for each level
	pending []tileContent
	newest  []tileContent
}

type tileContent struct {
	tile ct.Tile
	data []byte
}

// add appends a record. Tiles that it completes are written by flush.
func (w *treeWriter) add(text []byte) {
	n := w.edge.Size
	hash := ct.RecordHash(text)
	w.edge.Add(hash)
	// What is served now ends before what these appends write.
	w.data = append(append(w.data, text...), '\n')
	if (n+1)%tileWidth == 0 {
		w.full(ct.Tile{H: tileHeight, L: dataLevel, N: n >> tileHeight, W: tileWidth}, w.data)
		w.data = nil
	}
	for level := 0; ; level++ {
		if level == len(w.levels) {
			w.levels = append(w.levels, nil)
		}
		w.levels[level] = append(w.levels[level], hash[:]...)
		if len(w.levels[level]) < maxHashTile {
			return
		}
		tile := w.levels[level]
		w.full(ct.Tile{H: tileHeight, L: level, N: n >> (tileHeight * (level + 1)), W: tileWidth}, tile)
		w.levels[level] = nil
		hash = tileRoot(tile)
	}
}

// tileRoot returns the hash of the subtree over a full hash tile.
func tileRoot(tile []byte) ct.Hash {
	var e Edge
	for ; len(tile) > 0; tile = tile[ct.HashSize:] {
		e.Add(ct.Hash(tile[:ct.HashSize]))
	}
	return e.Root()
}

// full takes a tile that is complete.
func (w *treeWriter) full(t ct.Tile, data []byte) {
	if w.visit != nil {
		w.visit(tileContent{t, data})
		return
	}
	if !w.check {
		w.pending = append(w.pending, tileContent{t, data})
		return
	}
	for t.L+1 >= len(w.newest) {
		w.newest = append(w.newest, tileContent{})
	}
	w.newest[t.L+1] = tileContent{t, data}
	if _, err := os.Stat(w.file(t)); err != nil {
		w.log.Warn("tile is missing; writing it again", "file", w.file(t))
		w.pending = append(w.pending, tileContent{t, data})
	}
}

func (w *treeWriter) file(t ct.Tile) string {
	return filepath.Join(w.dir, filepath.FromSlash(t.Path()))
}

// flush writes the tiles that were completed. What fails is tried again by the
// next flush.
func (w *treeWriter) flush() error {
	for len(w.pending) > 0 {
		name := w.file(w.pending[0].tile)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := durable.WriteFile(name, w.pending[0].data, 0o644); err != nil {
			return err
		}
		w.pending = w.pending[1:]
	}
	return nil
}

// checkNewest compares the newest full tile of each level with the records.
func (w *treeWriter) checkNewest() error {
	for _, c := range w.newest {
		if c.data == nil {
			continue
		}
		name := w.file(c.tile)
		have, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && !bytes.Equal(have, c.data) {
			w.log.Error("tile on disk is damaged; writing it again from the records", "file", name)
			w.pending = append(w.pending, c)
		}
	}
	w.newest = nil
	return w.flush()
}

// servedTiles are the tiles in progress, as of a tree head.
type servedTiles struct {
	data   []byte
	levels [][]byte
}

func (w *treeWriter) served() servedTiles {
	s := servedTiles{data: w.data[:len(w.data):len(w.data)]}
	for _, l := range w.levels {
		s.levels = append(s.levels, l[:len(l):len(l)])
	}
	return s
}

// Tile returns a tile of the signed tree, or an error that is [ErrNotFound].
func (l *Log) Tile(t ct.Tile) ([]byte, error) {
	l.mu.RLock()
	size, served := l.head.Size, l.served
	l.mu.RUnlock()
	level := max(t.L, 0)
	if t.H != tileHeight || t.W < 1 || t.W > tileWidth || t.N < 0 || level > 7 {
		return nil, fmt.Errorf("tile %s: %w", t.Path(), ErrNotFound)
	}
	count := size >> (tileHeight * level) // hashes (or records) at that level
	first := t.N << tileHeight
	if t.N > count>>tileHeight || first+int64(t.W) > count {
		return nil, fmt.Errorf("tile %s: %w, which has %d records", t.Path(), ErrNotFound, size)
	}
	var data []byte
	if first+tileWidth <= count {
		var err error
		if data, err = l.fullTile(t); err != nil {
			return nil, err
		}
	} else if t.L == dataLevel {
		data = served.data
	} else {
		data = served.levels[t.L]
	}
	end, err := prefixLen(data, t)
	if err != nil {
		return nil, fmt.Errorf("tile %s is damaged on disk: %w", t.Path(), err)
	}
	return data[:end], nil
}

// fullTile returns the full tile that t is a part of.
func (l *Log) fullTile(t ct.Tile) ([]byte, error) {
	t.W = tileWidth
	if data := l.hot.get(t); data != nil {
		return data, nil
	}
	data, err := os.ReadFile(filepath.Join(l.dir, filepath.FromSlash(t.Path())))
	if err != nil {
		return nil, fmt.Errorf("reading a tile: %w", err)
	}
	if t.L != dataLevel {
		l.hot.put(t, data)
	}
	return data, nil
}

// hotTiles keeps full hash tiles that were asked for: all clients read those of
// the upper levels. They never change.
type hotTiles struct {
	mu    sync.RWMutex
	tiles map[ct.Tile][]byte
}

const maxHotTiles = 128 // of 8 KiB

func (h *hotTiles) get(t ct.Tile) []byte {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.tiles[t]
}

func (h *hotTiles) put(t ct.Tile, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tiles == nil {
		h.tiles = map[ct.Tile][]byte{}
	}
	for k := range h.tiles {
		if len(h.tiles) < maxHotTiles {
			break
		}
		delete(h.tiles, k) // map order is random enough
	}
	h.tiles[t] = data
}

// prefixLen returns how many bytes the first t.W hashes or records of a tile take.
func prefixLen(data []byte, t ct.Tile) (int, error) {
	if t.L != dataLevel {
		if len(data) < t.W*ct.HashSize {
			return 0, errors.New("it is cut short")
		}
		return t.W * ct.HashSize, nil
	}
	end := 0
	for i := range t.W {
		n := bytes.Index(data[end:], []byte("\n\n"))
		if n < 0 {
			return 0, fmt.Errorf("it has %d records, not %d", i, t.W)
		}
		end += n + 2
	}
	return end, nil
}
