package dnsserver

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync/atomic"
)

// A chain holds the names of the zone that NSEC records stand at, in canonical
// order (RFC 4034, section 6.1): names with data, and modules without. Names
// that only have others below them are not in it, unless those are too long to be.
//
// A name is kept as a key: its labels before the zone's name, last first, each
// followed by a zero byte, with zero and one in labels written as two bytes.
// Keys sort as the names do, and the key of a name is the beginning of the keys
// of all names below it. Keys lie in blocks in which each leaves out what it
// shares with the one before: 3 million names take some 60 MB.
//
// A chain is never changed: with makes another one that shares most blocks.
type chain struct {
	blocks []*chainBlock
	n      int
	forgot int64 // signed records of the chain it was made from that it has not
}

// A chainBlock holds up to maxBlock links. The first is kept whole. Data has, for
// each of the others, how much its key shares with the one before, twice the
// length of the rest plus one if there is a TXT record, both as uvarints, and
// the rest.
type chainBlock struct {
	first []byte
	txt   bool
	data  []byte

	// Signed NSEC records of its links, as far as they were asked for.
	signed atomic.Pointer[pieces]
}

const maxBlock = 64

// pieces are some of a block's, which are never changed: most blocks of a large
// zone have few.
type pieces struct {
	have uint64 // a bit for each link that has one
	list []*piece
}

// at returns the piece of link i, nil if there is none.
func (p *pieces) at(i int) *piece {
	if p == nil || p.have>>i&1 == 0 {
		return nil
	}
	return p.list[bits.OnesCount64(p.have&(1<<i-1))]
}

// with returns pieces that have another one too.
func (p *pieces) with(i int, add *piece) *pieces {
	if p == nil {
		p = &pieces{}
	}
	next := &pieces{have: p.have | 1<<i, list: make([]*piece, 0, len(p.list)+1)}
	at := bits.OnesCount64(p.have & (1<<i - 1))
	next.list = append(append(next.list, p.list[:at]...), add)
	if p.have>>i&1 != 0 {
		at++
	}
	next.list = append(next.list, p.list[at:]...)
	return next
}

// A link is a name in a chain.
type link struct {
	key []byte
	txt bool // it has a TXT record

	signed *piece // nil if there is none that is still right
}

// appendKey appends the key of the name before the offset end, in lower case.
func appendKey(dst, name []byte, end int) []byte {
	var at [128]uint8
	n := 0
	for i := 0; i < end; i += 1 + int(name[i]) {
		at[n] = uint8(i)
		n++
	}
	for n--; n >= 0; n-- {
		i := int(at[n])
		for _, c := range name[i+1 : i+1+int(name[i])] {
			if c <= 1 {
				dst = append(dst, 1)
				c++
			}
			dst = append(dst, c)
		}
		dst = append(dst, 0)
	}
	return dst
}

// appendKeyName appends the name, in wire format, that has a key.
func appendKeyName(dst, key, origin []byte) []byte {
	for len(key) > 0 {
		start := bytes.LastIndexByte(key[:len(key)-1], 0) + 1
		length := len(dst)
		dst = append(dst, 0)
		for i := start; i < len(key)-1; i++ {
			c := key[i]
			if c == 1 {
				i++
				c = key[i] - 1
			}
			dst = append(dst, c)
		}
		dst[length] = byte(len(dst) - length - 1)
		key = key[:start]
	}
	return append(dst, origin...)
}

// A place is where a key is in a chain, or would be: between the key before,
// which may be the key itself, and the one behind.
type place struct {
	block, at int // of the key before
	exact     bool
	below     bool // the key behind belongs to a name below
	encloser  int  // length of the key of the longest ancestor, or the name itself, that exists
	ofBefore  bool // the ancestor is one of the name before, not of the one behind
}

// find looks a key up. The chain has the empty key, that of the zone's own name.
func (c *chain) find(key []byte) place {
	b, _ := slices.BinarySearchFunc(c.blocks, key, func(b *chainBlock, key []byte) int {
		if bytes.Compare(b.first, key) <= 0 {
			return -1
		}
		return 1
	})
	b--
	p := place{block: b}
	block := c.blocks[b]
	same := common(block.first, key) // of the key and the last one that is not behind it
	behind := -1                     // of the key and the first one behind it
	p.exact = same == len(key) && same == len(block.first)
	for r := (chainReader{b: block.data}); r.next(); {
		if r.shared > same {
			p.at++
			continue
		}
		if r.shared < same {
			behind = r.shared
			break
		}
		n := common(r.rest, key[same:])
		if n < len(r.rest) && (same+n == len(key) || r.rest[n] > key[same+n]) {
			behind = same + n
			break
		}
		same += n
		p.at++
		p.exact = same == len(key) && n == len(r.rest)
	}
	if behind < 0 {
		behind = 0
		if b+1 < len(c.blocks) {
			behind = common(c.blocks[b+1].first, key)
		}
	}
	p.below = behind == len(key)
	before := bytes.LastIndexByte(key[:same], 0) + 1
	p.encloser = bytes.LastIndexByte(key[:behind], 0) + 1
	if before >= p.encloser {
		p.encloser, p.ofBefore = before, true
	}
	return p
}

// common is the length of the beginning that two keys share.
func common(a, b []byte) int {
	n := 0
	for len(a)-n >= 8 && len(b)-n >= 8 && binary.LittleEndian.Uint64(a[n:]) == binary.LittleEndian.Uint64(b[n:]) {
		n += 8
	}
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// between returns the link at a place and the key behind it; the last one is
// followed by the first.
func (c *chain) between(p place) (link, []byte) {
	links := c.blocks[p.block].links(nil)
	before := links[p.at]
	switch {
	case p.at+1 < len(links):
		return before, links[p.at+1].key
	case p.block+1 < len(c.blocks):
		return before, c.blocks[p.block+1].first
	}
	return before, nil
}

// A chainReader reads a block.
type chainReader struct {
	b      []byte
	shared int
	rest   []byte
	txt    bool
}

func (r *chainReader) next() bool {
	if len(r.b) == 0 {
		return false
	}
	shared, n := uvarint(r.b)
	size, m := uvarint(r.b[n:])
	n += m
	r.shared, r.txt = shared, size&1 != 0
	r.rest = r.b[n : n+size>>1]
	r.b = r.b[n+size>>1:]
	return true
}

// uvarint is binary.Uvarint for small numbers.
func uvarint(b []byte) (v, n int) {
	if b[0] < 0x80 {
		return int(b[0]), 1
	}
	return int(b[0]&0x7f) | int(b[1])<<7, 2
}

// links appends what a block holds.
func (b *chainBlock) links(dst []link) []link {
	start := len(dst)
	dst = append(dst, link{key: b.first, txt: b.txt})
	for r := (chainReader{b: b.data}); r.next(); {
		last := dst[len(dst)-1].key
		key := make([]byte, 0, r.shared+len(r.rest))
		dst = append(dst, link{key: append(append(key, last[:r.shared]...), r.rest...), txt: r.txt})
	}
	if signed := b.signed.Load(); signed != nil {
		for i := range dst[start:] {
			dst[start+i].signed = signed.at(i)
		}
	}
	return dst
}

// newBlock makes a block of links in order.
func newBlock(links []link) *chainBlock {
	b := &chainBlock{first: bytes.Clone(links[0].key), txt: links[0].txt}
	var data []byte
	for i, l := range links[1:] {
		shared := common(links[i].key, l.key)
		rest := l.key[shared:]
		mark := uint64(0)
		if l.txt {
			mark = 1
		}
		data = binary.AppendUvarint(data, uint64(shared))
		data = binary.AppendUvarint(data, uint64(len(rest))<<1|mark)
		data = append(data, rest...)
	}
	b.data = bytes.Clone(data)
	for i, l := range links {
		if l.signed != nil {
			b.keep(i, l.signed)
		}
	}
	return b
}

// keep remembers the signed record of a link. It is safe for many at once.
func (b *chainBlock) keep(i int, p *piece) (fresh bool) {
	for {
		signed := b.signed.Load()
		if b.signed.CompareAndSwap(signed, signed.with(i, p)) {
			return signed.at(i) == nil
		}
	}
}

// piece returns the signed record of a link, nil if there is none.
func (b *chainBlock) piece(i int) *piece { return b.signed.Load().at(i) }

// drop forgets the signed records and says how many there were.
func (b *chainBlock) drop() int64 {
	if signed := b.signed.Swap(nil); signed != nil {
		return int64(len(signed.list))
	}
	return 0
}

// newChain is a chain of the zone's own name.
func newChain() *chain {
	return &chain{blocks: []*chainBlock{newBlock([]link{{key: []byte{}}})}, n: 1}
}

// with returns a chain that has these links too. They are put in order.
func (c *chain) with(links []link) *chain {
	slices.SortStableFunc(links, func(a, b link) int { return bytes.Compare(a.key, b.key) })
	out := &chain{blocks: make([]*chainBlock, 0, len(c.blocks)+len(links)/maxBlock+1), n: c.n}
	var old, merged []link
	for i, b := range c.blocks {
		// The block's share: what comes before the next block.
		n := len(links)
		if i+1 < len(c.blocks) {
			next := c.blocks[i+1].first
			n, _ = slices.BinarySearchFunc(links, next, func(l link, key []byte) int { return bytes.Compare(l.key, key) })
		}
		if n == 0 {
			out.blocks = append(out.blocks, b)
			continue
		}
		old = b.links(old[:0])
		merged = mergeLinks(merged[:0], old, links[:n])
		out.forgot += countSigned(old) - countSigned(merged)
		links = links[n:]
		out.n += len(merged) - len(old)
		for parts := (len(merged) + maxBlock - 1) / maxBlock; parts > 0; parts-- {
			n := len(merged) / parts
			out.blocks = append(out.blocks, newBlock(merged[:n]))
			merged = merged[n:]
		}
	}
	return out
}

func countSigned(links []link) (n int64) {
	for i := range links {
		if links[i].signed != nil {
			n++
		}
	}
	return n
}

// mergeLinks merges new links into those of a block. Of the same name the later
// one counts; what was signed stays where neither the name nor the next changed.
func mergeLinks(dst, old, fresh []link) []link {
	for len(old) > 0 || len(fresh) > 0 {
		if len(fresh) == 0 || len(old) > 0 && bytes.Compare(old[0].key, fresh[0].key) <= 0 {
			dst = append(dst, old[0])
			old = old[1:]
			continue
		}
		l := fresh[0]
		fresh = fresh[1:]
		last := len(dst) - 1
		if last >= 0 && bytes.Equal(dst[last].key, l.key) {
			if dst[last].txt == l.txt {
				l.signed = dst[last].signed
			}
			dst[last] = l
			continue
		}
		if last >= 0 {
			dst[last].signed = nil
		}
		dst = append(dst, l)
	}
	return dst
}
