package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt puts a checksum on its two meta pages and on nothing else. A flipped
// bit in a page's header, in a pointer to a page or in the list of free pages
// hides data, shows old data, sends a search in a circle or makes the next
// write destroy what is in use. So the pages that lead to data are checked
// here before bbolt sees the file; what lies in the leaves speaks for itself
// (see block.go).
//
// The layout (numbers are in the machine's byte order):
//
//	page:    its number (8 bytes), flags (2), count (2), number of pages that follow as its continuation (4)
//	meta:    magic (4), version (4), page size (4), flags (4), root page (8), sequence (8),
//	         free list's page (8), number of pages (8), transaction (8), FNV-1a of these (8)
//	branch:  for each child: offset of its key from here (4), size of that (4), page (8)
//	leaf:    for each key: flags (4), offset of it from here (4), its size (4), size of the value behind it (4)
//	bucket:  a leaf's value: root page (8), sequence (8); if the root is 0 a page follows
//	free list: page numbers (8 each); if there are 65535 or more, their number first
const (
	pageSize       = 4096
	pageHeader     = 16
	elementSize    = 16
	branchFlag     = 0x01
	leafFlag       = 0x02
	freeListFlag   = 0x10
	bucketFlag     = 0x01 // of a key
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	maxPageDepth   = 12
	maxStorePages  = 1 << 24 // 64 GiB, more than the map takes
	longFreeList   = 0xFFFF
	bucketHeadSize = 16
)

// A pageMeta is what a meta page says.
type pageMeta struct{ root, free, pages, tx uint64 }

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w (%s)", ErrCorrupt, fmt.Sprintf(format, args...))
}

// readMeta returns what the meta page in b says; ok is false when it is none.
func readMeta(b []byte) (m pageMeta, ok bool) {
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	b = b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:56])
	if u32(b) != boltMagic || u32(b[4:]) != boltVersion || u32(b[8:]) != pageSize || u64(b[56:]) != sum.Sum64() {
		return m, false
	}
	return pageMeta{u64(b[16:]), u64(b[32:]), u64(b[40:]), u64(b[48:])}, true
}

// A pageCheck walks over the pages of one state of the file.
type pageCheck struct {
	f      io.ReaderAt
	meta   pageMeta
	leaves bool   // read them too
	use    []byte // of each page: what it was seen as
	stop   <-chan struct{}
}

const (
	inUse = 1 + iota
	isFree
)

// checkPages checks the state of the given transaction, 0 for the newest one,
// and returns its transaction. With leaves it reads all of the file, and every
// page must be in use or free; else only what leads to the leaves. found is
// false when that state is not in the file (any more).
func checkPages(f io.ReaderAt, size int64, tx uint64, leaves bool, stop <-chan struct{}) (got uint64, found bool, err error) {
	b := make([]byte, 2*pageSize)
	if n, err := f.ReadAt(b, 0); n < len(b) && err != io.EOF {
		return 0, false, err
	} else if n < len(b) {
		return 0, true, damaged("the file is cut short")
	}
	c := &pageCheck{f: f, leaves: leaves, stop: stop}
	whole := false
	for i := range 2 {
		m, ok := readMeta(b[i*pageSize : (i+1)*pageSize])
		whole = whole || ok
		if ok && (tx == 0 && m.tx >= c.meta.tx || tx != 0 && m.tx == tx) {
			c.meta, found = m, true
		}
	}
	switch {
	case !whole:
		return 0, true, damaged("it starts with no valid page")
	case !found:
		return 0, false, nil
	case c.meta.pages > maxStorePages || int64(c.meta.pages)*pageSize > size:
		return c.meta.tx, true, damaged("the file is cut short")
	}
	c.use = make([]byte, c.meta.pages)
	if err := c.run(); err != nil {
		return c.meta.tx, true, err
	}
	return c.meta.tx, true, nil
}

func (c *pageCheck) run() error {
	c.use[0], c.use[1] = inUse, inUse
	if err := c.freeList(); err != nil {
		return err
	}
	if err := c.tree(c.meta.root, true); err != nil {
		return err
	}
	if c.leaves {
		for id, use := range c.use {
			if use == 0 {
				return damaged("page %d is neither used nor free", id)
			}
		}
	}
	return nil
}

// take marks a page as what it is; each page is one thing.
func (c *pageCheck) take(id uint64, use byte) error {
	if id >= uint64(len(c.use)) || c.use[id] != 0 {
		return damaged("page %d is not there or has two uses", id)
	}
	c.use[id] = use
	return nil
}

// read reads a page with its continuation.
func (c *pageCheck) read(id uint64) (b []byte, flags, count int, err error) {
	select {
	case <-c.stop:
		return nil, 0, 0, errClosed
	default:
	}
	if id < 2 || id >= c.meta.pages {
		return nil, 0, 0, damaged("page %d is not there", id)
	}
	b = make([]byte, pageSize)
	if _, err := c.f.ReadAt(b, int64(id)*pageSize); err != nil {
		return nil, 0, 0, err
	}
	more := uint64(binary.NativeEndian.Uint32(b[12:]))
	if binary.NativeEndian.Uint64(b) != id || more >= c.meta.pages-id {
		return nil, 0, 0, damaged("page %d is not itself", id)
	}
	for i := range more + 1 {
		if err := c.take(id+i, inUse); err != nil {
			return nil, 0, 0, err
		}
	}
	if more > 0 {
		b = make([]byte, (more+1)*pageSize)
		if _, err := c.f.ReadAt(b, int64(id)*pageSize); err != nil {
			return nil, 0, 0, err
		}
	}
	return b, int(binary.NativeEndian.Uint16(b[8:])), int(binary.NativeEndian.Uint16(b[10:])), nil
}

func (c *pageCheck) freeList() error {
	b, flags, count, err := c.read(c.meta.free)
	if err != nil {
		return err
	}
	ids := b[pageHeader:]
	n := uint64(count)
	if n == longFreeList {
		n, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if flags != freeListFlag || n > uint64(len(ids)/8) {
		return damaged("page %d is no list of free pages", c.meta.free)
	}
	last := uint64(0)
	for i := range n {
		id := binary.NativeEndian.Uint64(ids[8*i:])
		if id <= last {
			return damaged("the list of free pages is out of order")
		}
		last = id
		if err := c.take(id, isFree); err != nil {
			return err
		}
	}
	return nil
}

// tree checks a bucket; the outermost one holds buckets.
func (c *pageCheck) tree(root uint64, outermost bool) error {
	// All leaves lie at one depth, that of the first.
	depth := 0
	for id := root; ; depth++ {
		var b [pageHeader + elementSize]byte
		if id < 2 || id >= c.meta.pages || depth > maxPageDepth {
			return damaged("page %d is not there", id)
		}
		if _, err := c.f.ReadAt(b[:], int64(id)*pageSize); err != nil {
			return err
		}
		if binary.NativeEndian.Uint16(b[8:]) != branchFlag {
			break
		}
		id = binary.NativeEndian.Uint64(b[pageHeader+8:])
	}
	return c.node(root, depth, nil, nil, outermost)
}

// node checks a page and what it leads to; its first key is low (nil: any),
// since bbolt finds a page in the one above by that when it writes, and all are
// less than high (nil: no bound).
func (c *pageCheck) node(id uint64, depth int, low, high []byte, outermost bool) error {
	if depth == 0 && !c.leaves && !outermost {
		return c.take(id, inUse)
	}
	b, flags, count, err := c.read(id)
	if err != nil {
		return err
	}
	children, keys, err := c.elements(id, b, flags, count, depth, low, high, outermost)
	if err != nil {
		return err
	}
	for i, child := range children {
		next := high
		if i+1 < len(keys) {
			next = keys[i+1]
		}
		if err := c.node(child, depth-1, keys[i], next, outermost); err != nil {
			return err
		}
	}
	return nil
}

// elements checks what is in a page and returns the pages below with their first keys.
func (c *pageCheck) elements(id uint64, b []byte, flags, count, depth int, low, high []byte, outermost bool) (children []uint64, keys [][]byte, err error) {
	wanted := branchFlag
	if depth == 0 {
		wanted = leafFlag
	}
	if flags != wanted || pageHeader+count*elementSize > len(b) || count == 0 && (depth > 0 || low != nil) {
		return nil, nil, damaged("page %d is of another kind", id)
	}
	u32 := binary.NativeEndian.Uint32
	var last []byte
	end := pageHeader + count*elementSize // of the keys and values before
	for i := range count {
		at := pageHeader + i*elementSize
		e := b[at : at+elementSize]
		var pos, size, more uint32
		if depth > 0 {
			pos, size = u32(e), u32(e[4:])
		} else {
			pos, size, more = u32(e[4:]), u32(e[8:]), u32(e[12:])
		}
		if int64(pos)+int64(at) != int64(end) || size == 0 || int64(size)+int64(more) > int64(len(b)-end) {
			return nil, nil, damaged("page %d: key %d lies elsewhere", id, i)
		}
		key, value := b[end:end+int(size)], b[end+int(size):end+int(size)+int(more)]
		end += int(size) + int(more)
		if last != nil && bytes.Compare(last, key) >= 0 || i == 0 && low != nil && !bytes.Equal(key, low) || high != nil && bytes.Compare(key, high) >= 0 {
			return nil, nil, damaged("page %d: key %d is out of order", id, i)
		}
		last = key
		switch {
		case depth > 0:
			children, keys = append(children, binary.NativeEndian.Uint64(e[8:])), append(keys, key)
		case outermost && u32(e) == bucketFlag:
			if err := c.bucket(value); err != nil {
				return nil, nil, err
			}
		case outermost || u32(e) != 0:
			return nil, nil, damaged("page %d: key %d is of another kind", id, i)
		}
	}
	return children, keys, nil
}

func (c *pageCheck) bucket(b []byte) error {
	if len(b) < bucketHeadSize {
		return damaged("a bucket is cut short")
	}
	root, page := binary.NativeEndian.Uint64(b), b[bucketHeadSize:]
	if root != 0 {
		return c.tree(root, false)
	}
	if len(page) < pageHeader {
		return damaged("a bucket is cut short")
	}
	_, _, err := c.elements(0, page, int(binary.NativeEndian.Uint16(page[8:])), int(binary.NativeEndian.Uint16(page[10:])), 0, nil, nil, false)
	return err
}
