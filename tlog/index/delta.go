package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// A delta collects what records changed, until it is merged into the blocks of
// the store. It holds no pointers but its few slices, so that millions of
// modules cost the garbage collector nothing.
type delta struct {
	table []uint64 // half of a hash, then the index of its module plus 1; open addressing, power of 2
	mods  []deltaModule
	lists
	arena   []byte
	dirty   []uint32 // modules changed since the last journal
	scratch []entry
	warmed  uint64 // keeps the reads of warm from being optimized away

	conflict func(path []byte, have, got entry, arena []byte)
}

type deltaModule struct {
	hash    uint64
	path    span
	at      uint32 // of its entries
	n       uint8  // number of entries
	isDirty bool
}

func newDelta() *delta { return &delta{table: make([]uint64, 1<<10)} }

// size is about the memory that the delta takes.
func (d *delta) size() int64 {
	return int64(len(d.table)*8 + len(d.mods)*24 + len(d.entries)*64 + len(d.arena))
}

// find returns the module of a path, adding it if needed; ok is false for what
// is not a module path.
func (d *delta) find(hash uint64, path []byte) (m uint32, ok bool) {
	mask := uint64(len(d.table) - 1)
	i := hash & mask
	for ; d.table[i] != 0; i = (i + 1) & mask {
		if (d.table[i]^hash)>>32 != 0 {
			continue
		}
		n := uint32(d.table[i]) - 1
		if m := &d.mods[n]; m.hash == hash && bytes.Equal(m.path.of(d.arena), path) {
			return n, true
		}
	}
	if !validPath(path) {
		return 0, false
	}
	d.mods = append(grown(d.mods, 1), deltaModule{hash: hash, path: d.keep(path)})
	n := uint32(len(d.mods))
	d.table[i] = tableEntry(hash, n)
	if len(d.mods)*2 > len(d.table) {
		d.grow()
	}
	return n - 1, true
}

func tableEntry(hash uint64, n uint32) uint64 { return hash>>32<<32 | uint64(n) }

func (d *delta) grow() {
	d.table = make([]uint64, 2*len(d.table))
	useHugePages(d.table)
	mask := uint64(len(d.table) - 1)
	for n := range d.mods {
		i := d.mods[n].hash & mask
		for d.table[i] != 0 {
			i = (i + 1) & mask
		}
		d.table[i] = tableEntry(d.mods[n].hash, uint32(n+1))
	}
}

// keep copies text into the arena.
func (d *delta) keep(text []byte) span {
	s := span{uint32(len(d.arena)), uint16(len(text))}
	d.arena = append(grown(d.arena, len(text)), text...)
	return s
}

// warm reads what find and add will read for these records. A delta is larger
// than the processor's caches, and they wait for memory several times in a row;
// here the reads of many records wait together.
func (d *delta) warm(recs []rec) {
	const most = 256
	var mods [most]uint32
	mask := uint64(len(d.table) - 1)
	for len(recs) > 0 {
		n := min(len(recs), most)
		for k := range n {
			mods[k] = uint32(d.table[recs[k].hash&mask]) - 1
		}
		d.warmModules(mods[:n])
		recs = recs[n:]
	}
}

// warmModules reads what these modules are made of; their numbers may be of no
// module.
func (d *delta) warmModules(mods []uint32) {
	for _, m := range mods {
		if uint64(m) >= uint64(len(d.mods)) {
			continue
		}
		dm := &d.mods[m]
		d.warmed += uint64(d.arena[dm.path.at]) + uint64(d.arena[dm.path.at+uint32(dm.path.len)-1]) // may lie in two lines of the cache
		if dm.n > 0 {
			d.warmed += d.entries[dm.at].major
		}
	}
}

// warmAhead is how many modules are worth warming together.
const warmAhead = 128

// add takes in a version of a module that find returned.
func (d *delta) add(m uint32, r *rec, record, time int64) {
	l := d.list(m)
	if redundant(l, r.ver, r.pre, d.arena) || len(l) > 0 && d.replaceNewest(m, &l[0], r, record, time) {
		return
	}
	e := entry{ver: r.ver, record: record, time: time, tag: r.tag}
	if r.kind != release {
		e.pre = d.keep(r.pre)
	}
	d.put(m, e)
}

// replaceNewest does what insert would do in the most frequent cases, in place:
// the next release of the newest minor line, and the next pseudo-version where
// there is nothing else.
func (d *delta) replaceNewest(m uint32, e *entry, r *rec, record, time int64) bool {
	if e.kind != r.kind || e.major != r.major || e.incompatible != r.incompatible {
		return false
	}
	switch {
	case r.kind == release && e.minor == r.minor && e.patch < r.patch:
	case r.kind == pseudo && compareVer(e.ver, r.ver, e.pre.of(d.arena), r.pre) < 0: // no tag, else it were redundant
		if int(e.pre.len) == len(r.pre) {
			copy(d.arena[e.pre.at:], r.pre)
		} else {
			e.pre = d.keep(r.pre)
		}
	default:
		return false
	}
	e.ver, e.record, e.time, e.tag = r.ver, record, time, r.tag
	d.touch(m)
	return true
}

// touch notes that a module changed.
func (d *delta) touch(m uint32) {
	if !d.mods[m].isDirty {
		d.mods[m].isDirty = true
		d.dirty = append(d.dirty, m)
	}
}

// clean notes that the journal has all changes.
func (d *delta) clean() {
	for _, m := range d.dirty {
		d.mods[m].isDirty = false
	}
	d.dirty = d.dirty[:0]
}

// put inserts an entry into the list of a module.
func (d *delta) put(m uint32, e entry) {
	out, other := insert(append(d.scratch[:0], d.list(m)...), e, d.arena)
	d.scratch = out
	if other != nil && other.tag != e.tag {
		d.conflict(d.mods[m].path.of(d.arena), *other, e, d.arena)
	}
	dm := &d.mods[m]
	dm.at = d.replace(dm.at, int(dm.n), out)
	dm.n = uint8(len(out)) // insert keeps far fewer than 256
	d.touch(m)
}

// list returns the entries of a module, newest first.
func (d *delta) list(m uint32) []entry {
	dm := &d.mods[m]
	return d.entries[dm.at:][:dm.n]
}

// sorted returns the modules in the order of their paths. Most comparisons are
// those of the first bytes behind what a great part of the paths begins with.
func (d *delta) sorted() []uint32 {
	type ref struct {
		key uint64
		n   uint32
		few uint32 // where the paths are that don't have the common beginning
	}
	refs := make([]ref, len(d.mods))
	for i := range refs {
		path := d.mods[i].path.of(d.arena)
		r := ref{n: uint32(i), few: 1}
		if rest, ok := bytes.CutPrefix(path, commonStart); ok {
			path = rest
		} else {
			r.few = uint32(1 + bytes.Compare(path, commonStart))
		}
		var key [8]byte
		copy(key[:], path)
		r.key = binary.BigEndian.Uint64(key[:])
		refs[i] = r
	}
	slices.SortFunc(refs, func(a, b ref) int {
		if c := cmp.Compare(a.few, b.few); c != 0 {
			return c
		}
		if c := cmp.Compare(a.key, b.key); c != 0 {
			return c
		}
		return bytes.Compare(d.mods[a.n].path.of(d.arena), d.mods[b.n].path.of(d.arena))
	})
	order := make([]uint32, len(refs))
	for i, r := range refs {
		order[i] = r.n
	}
	return order
}

var commonStart = []byte("github.com/")

// reset empties the delta, keeping its memory.
func (d *delta) reset() {
	clear(d.table)
	d.mods, d.arena, d.dirty = d.mods[:0], d.arena[:0], d.dirty[:0]
	d.lists.reset()
}
