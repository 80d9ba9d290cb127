package tlog

import (
	"encoding/binary"
	"errors"
	"math/bits"

	ct "golang.org/x/mod/sumdb/tlog"
)

// An Edge is the right edge of a tree (a "compact range" from 0): the hashes of
// the largest full subtrees from left to right. It is all of a tree that is
// needed to append to it and to compute its hash.
type Edge struct {
	Size   int64
	Hashes []ct.Hash // as many as Size has bits set
}

// AddSubtree appends a full subtree of 1<<level records; Size must be a multiple
// of that.
func (e *Edge) AddSubtree(level int, h ct.Hash) {
	for n := e.Size >> level; n&1 == 1; n >>= 1 {
		last := len(e.Hashes) - 1
		h = ct.NodeHash(e.Hashes[last], h)
		e.Hashes = e.Hashes[:last]
	}
	e.Hashes = append(e.Hashes, h)
	e.Size += 1 << level
}

// Add appends one record by its hash (see [ct.RecordHash]).
func (e *Edge) Add(leaf ct.Hash) { e.AddSubtree(0, leaf) }

// Root returns the hash of the tree.
func (e Edge) Root() ct.Hash {
	if len(e.Hashes) == 0 {
		return emptyHash
	}
	h := e.Hashes[len(e.Hashes)-1]
	for i := len(e.Hashes) - 2; i >= 0; i-- {
		h = ct.NodeHash(e.Hashes[i], h)
	}
	return h
}

// Clone returns a copy that shares nothing.
func (e Edge) Clone() Edge { return Edge{e.Size, append([]ct.Hash(nil), e.Hashes...)} }

// MarshalBinary returns the size and the hashes.
func (e Edge) MarshalBinary() ([]byte, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(e.Size))
	for _, h := range e.Hashes {
		b = append(b, h[:]...)
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (e *Edge) UnmarshalBinary(b []byte) error {
	if len(b) < 8 {
		return errors.New("right edge of a tree is cut short")
	}
	size := int64(binary.BigEndian.Uint64(b))
	b = b[8:]
	if size < 0 || len(b) != bits.OnesCount64(uint64(size))*ct.HashSize {
		return errors.New("right edge of a tree has a wrong length")
	}
	e.Size, e.Hashes = size, nil
	for ; len(b) > 0; b = b[ct.HashSize:] {
		e.Hashes = append(e.Hashes, ct.Hash(b[:ct.HashSize]))
	}
	return nil
}
