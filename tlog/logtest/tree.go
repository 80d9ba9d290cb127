package logtest

import (
	"runtime"
	"sync"

	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/tlog"
)

const tileWidth = 256

// A tree holds the hashes of a content's full tiles; those of records are
// computed when they are asked for.
type tree struct {
	content *Content
	levels  [][]ct.Hash                // levels[k]: the hashes of full subtrees of 256^(k+1) records
	made    func(n int64, tile []byte) // called for each full data tile when it is hashed, may be nil
}

// leaves returns the hashes of the records of a data tile.
func (t *tree) leaves(n int64, width int) []ct.Hash {
	hashes := make([]ct.Hash, width)
	b := make([]byte, 0, width*220)
	for k := range hashes {
		start := len(b)
		b = t.content.Append(b, n*tileWidth+int64(k))
		hashes[k] = ct.RecordHash(b[start:])
		b = append(b, '\n')
	}
	if t.made != nil && width == tileWidth {
		t.made(n, b)
	}
	return hashes
}

func root(hashes []ct.Hash) ct.Hash {
	var e tlog.Edge
	for _, h := range hashes {
		e.Add(h)
	}
	return e.Root()
}

// grow computes the hashes for a size, on all processors.
func (t *tree) grow(size int64) {
	if len(t.levels) == 0 {
		t.levels = [][]ct.Hash{nil}
	}
	have, want := int64(len(t.levels[0])), size/tileWidth
	if want > have {
		t.levels[0] = append(t.levels[0], make([]ct.Hash, want-have)...)
		next := make(chan int64, 64)
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for n := range next {
					t.levels[0][n] = root(t.leaves(n, tileWidth))
				}
			})
		}
		for n := have; n < want; n++ {
			next <- n
		}
		close(next)
		wg.Wait()
	}
	for k := 1; len(t.levels[k-1]) >= tileWidth; k++ {
		if k == len(t.levels) {
			t.levels = append(t.levels, nil)
		}
		for n := len(t.levels[k]); n < len(t.levels[k-1])/tileWidth; n++ {
			t.levels[k] = append(t.levels[k], root(t.levels[k-1][n*tileWidth:(n+1)*tileWidth]))
		}
	}
}

// head returns the tree of a size that was grown to.
func (t *tree) head(size int64) ct.Tree {
	var e tlog.Edge
	for k := len(t.levels) - 1; k >= 0; k-- {
		for n := e.Size >> (8 * (k + 1)); n < size>>(8*(k+1)); n++ {
			e.AddSubtree(8*(k+1), t.levels[k][n])
		}
	}
	for _, h := range t.leaves(size/tileWidth, int(size%tileWidth)) {
		e.Add(h)
	}
	return ct.Tree{N: size, Hash: e.Root()}
}

// tile returns the content of a tile of the tree of a size, nil if there is none.
func (t *tree) tile(tile ct.Tile, size int64) []byte {
	count := size >> (8 * max(tile.L, 0))
	if tile.H != 8 || tile.N > count/tileWidth || tile.N*tileWidth+int64(tile.W) > count {
		return nil
	}
	var b []byte
	switch {
	case tile.L == -1:
		for i := range int64(tile.W) {
			b = append(t.content.Append(b, tile.N*tileWidth+i), '\n')
		}
	case tile.L == 0:
		for _, h := range t.leaves(tile.N, tile.W) {
			b = append(b, h[:]...)
		}
	default:
		for _, h := range t.levels[tile.L-1][tile.N*tileWidth:][:tile.W] {
			b = append(b, h[:]...)
		}
	}
	return b
}
