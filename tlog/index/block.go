package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The store keeps modules in blocks, in the order of their paths. The blocks
// share out all paths there can be: a block is in charge of those behind its
// low end up to its key, the last block up to topKey. So a block tells for each
// path that it is in charge of whether the index has it, and a search that
// meets another block has met damage: none can vanish unnoticed. A block is
//
//	CRC-32C of the key and the rest (4 bytes)
//	length of its low end (the key of the block before), that low end
//	for each module: length of the path's beginning that it shares with the
//	path before (the low end), length of the rest of the path, that rest,
//	length of the entries, entries
//
// and an entry is
//
//	a byte (kind, and 4 for +incompatible), major, minor, patch,
//	[length of the pre-release text, that text,] record, time, tag (8 bytes)
//
// with uvarints for numbers (a zigzag varint for the time). Hosts lie in blocks
// too, as paths without entries.

// blockSize is what a block is split at. Larger ones share more of the paths,
// smaller ones are faster to search.
const blockSize = 1400

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// ErrCorrupt says that the index file is damaged.
	ErrCorrupt = errors.New("index is damaged: remove its file and let it be built again, from kept tiles or from the log")
)

const incompatibleBit = 4

// topKey is behind all paths.
var topKey = []byte{0xff}

func appendEntry(b []byte, e *entry, arena []byte) []byte {
	k := byte(e.kind)
	if e.incompatible {
		k |= incompatibleBit
	}
	b = append(b, k)
	b = binary.AppendUvarint(b, e.major)
	b = binary.AppendUvarint(b, e.minor)
	b = binary.AppendUvarint(b, e.patch)
	if e.kind != release {
		b = binary.AppendUvarint(b, uint64(e.pre.len))
		b = append(b, e.pre.of(arena)...)
	}
	b = binary.AppendUvarint(b, uint64(e.record))
	b = binary.AppendVarint(b, e.time)
	return binary.LittleEndian.AppendUint64(b, e.tag)
}

// entry reads an entry; its pre-release text is returned, not kept.
func (r *reader) entry() (e entry, pre []byte) {
	k := r.byte()
	e.kind, e.incompatible = kind(k&3), k&incompatibleBit != 0
	e.major, e.minor, e.patch = r.uvarint(), r.uvarint(), r.uvarint()
	if e.kind != release {
		pre = r.bytes(r.uvarint())
	}
	e.record, e.time, e.tag = int64(r.uvarint()), r.varint(), r.uint64()
	if e.kind > pseudo || k > 3|incompatibleBit {
		r.bad = true
	}
	return e, pre
}

// A blockWriter makes one block.
type blockWriter struct {
	b       []byte
	last    []byte
	entries []byte
}

// reset starts a block in charge of what lies behind low.
func (w *blockWriter) reset(low []byte) {
	w.b = append(w.b[:0], 0, 0, 0, 0)
	w.b = binary.AppendUvarint(w.b, uint64(len(low)))
	w.b = append(w.b, low...)
	w.last = append(w.last[:0], low...)
}

func (w *blockWriter) add(path []byte, l []entry, arena []byte) {
	w.entries = w.entries[:0]
	for i := range l {
		w.entries = appendEntry(w.entries, &l[i], arena)
	}
	w.addRaw(path, w.entries)
}

// addRaw adds a module with its entries as they are in another block.
func (w *blockWriter) addRaw(path, entries []byte) {
	n := 0
	for n < len(path) && n < len(w.last) && path[n] == w.last[n] {
		n++
	}
	w.b = binary.AppendUvarint(w.b, uint64(n))
	w.b = binary.AppendUvarint(w.b, uint64(len(path)-n))
	w.b = append(w.b, path[n:]...)
	w.b = binary.AppendUvarint(w.b, uint64(len(entries)))
	w.b = append(w.b, entries...)
	w.last = append(w.last[:0], path...)
}

// finish returns the block, in charge of what lies up to key.
func (w *blockWriter) finish(key []byte) []byte {
	binary.LittleEndian.PutUint32(w.b, blockSum(key, w.b[4:]))
	return w.b
}

func blockSum(key, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rest)
}

// A blockReader walks over the modules of a block.
type blockReader struct {
	r       reader
	low     []byte
	path    []byte
	entries []byte
	buf     [maxPath]byte
}

// open checks a block and starts before its first module.
func (r *blockReader) open(key, b []byte) error {
	if len(b) < 4 || blockSum(key, b[4:]) != binary.LittleEndian.Uint32(b) {
		return ErrCorrupt
	}
	r.r = reader{b: b[4:]}
	r.low = r.r.bytes(r.r.uvarint())
	if r.r.bad || len(r.low) > maxPath {
		return ErrCorrupt
	}
	r.path = append(r.buf[:0], r.low...)
	return nil
}

// openFor opens the block that a search for a path came upon.
func (r *blockReader) openFor(path, key, b []byte) error {
	if b == nil {
		return fmt.Errorf("%w (no block for %q)", ErrCorrupt, path)
	}
	if err := r.open(key, b); err != nil {
		return err
	}
	if len(r.low) > 0 && bytes.Compare(path, r.low) <= 0 || bytes.Compare(path, key) > 0 {
		return fmt.Errorf("%w (no block for %q)", ErrCorrupt, path)
	}
	return nil
}

// next moves to the next module; it returns false at the end.
func (r *blockReader) next() (bool, error) {
	if len(r.r.b) == 0 {
		return false, nil
	}
	shared := r.r.uvarint()
	rest := r.r.bytes(r.r.uvarint())
	r.entries = r.r.bytes(r.r.uvarint())
	if r.r.bad || shared > uint64(len(r.path)) || shared+uint64(len(rest)) > maxPath {
		return false, ErrCorrupt
	}
	r.path = append(r.path[:shared], rest...)
	return true, nil
}

// seek moves to the first module whose path is not less than path.
func (r *blockReader) seek(path []byte) (bool, error) {
	for {
		ok, err := r.next()
		if err != nil || !ok || bytes.Compare(r.path, path) >= 0 {
			return ok, err
		}
	}
}

// list appends the entries of the current module; pre-release texts go to the arena.
func (r *blockReader) list(l []entry, arena []byte) ([]entry, []byte, error) {
	er := reader{b: r.entries}
	for len(er.b) > 0 && !er.bad {
		e, pre := er.entry()
		if len(pre) > 0 {
			e.pre = span{uint32(len(arena)), uint16(len(pre))}
			arena = append(arena, pre...)
		}
		l = append(l, e)
	}
	if er.bad {
		return l, arena, ErrCorrupt
	}
	return l, arena, nil
}
