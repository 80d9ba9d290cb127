package tlog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	ct "golang.org/x/mod/sumdb/tlog"
)

// tileData is the content of a data tile, with its hashes. It is reused.
type tileData struct {
	buf     []byte // one byte to spare, then the tile
	end     int    // of the records asked for
	records [][]byte
	leaves  []ct.Hash
	root    ct.Hash // only of a full tile
	nodes   []ct.Hash
}

func (d *tileData) set(data []byte) {
	d.buf = append(append(d.buf[:0], 0), data...)
}

// bytes returns the part of the tile that holds the records asked for.
func (d *tileData) bytes() []byte { return d.buf[1:d.end] }

// errTile says that a data tile is not a row of records.
var errTile = errors.New("malformed data tile")

// parse splits the first n records off the tile and computes their hashes.
func (d *tileData) parse(n int) error {
	d.records, d.leaves = d.records[:0], d.leaves[:0]
	buf := d.buf
	at := 1 // start of the record
	for i := range n {
		end := at
		for {
			k := bytes.IndexByte(buf[end:], '\n')
			if k < 0 || end+k+1 >= len(buf) {
				return fmt.Errorf("%w: it has %d records, not %d", errTile, i, n)
			}
			end += k + 1
			if buf[end] == '\n' {
				break
			}
			if k == 0 { // starts with an empty line
				return fmt.Errorf("%w: record %d starts with an empty line", errTile, i)
			}
		}
		d.records = append(d.records, buf[at:end:end])
		d.leaves = append(d.leaves, leafHash(buf[at-1:end]))
		at = end + 1
	}
	d.end = at
	if n == tileWidth {
		if at != len(buf) {
			return fmt.Errorf("%w: %d bytes follow its last record", errTile, len(buf)-at)
		}
		d.root = d.reduce()
	}
	return nil
}

// leafHash hashes a record in place; b has one byte in front of it.
func leafHash(b []byte) ct.Hash {
	keep := b[0]
	b[0] = 0
	h := sha256.Sum256(b)
	b[0] = keep
	return h
}

// reduce returns the hash of the full subtree over the leaves.
func (d *tileData) reduce() ct.Hash {
	d.nodes = append(d.nodes[:0], d.leaves...)
	level := d.nodes
	var b [1 + 2*ct.HashSize]byte
	b[0] = 1
	for len(level) > 1 {
		for i := range len(level) / 2 {
			copy(b[1:], level[2*i][:])
			copy(b[1+ct.HashSize:], level[2*i+1][:])
			level[i] = sha256.Sum256(b[:])
		}
		level = level[:len(level)/2]
	}
	return level[0]
}
