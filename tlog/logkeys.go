package tlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A keyTable says which record has a key. It is a hash table in a file, so
// that a large log needs no more memory than a small one. Every start makes it
// anew from the records, which are read then anyway: nothing in it is trusted
// from an earlier run, and it needs no sync.
//
// The file is a row of buckets of 64 slots; the first bits of a key's hash
// choose the bucket. A slot holds 32 bits of the hash, the record's number plus
// one (40 bits) and its offset in the file "records" (56 bits). When a bucket is
// full the table doubles: each bucket becomes two neighbours, in one pass over
// the file. The hash is seeded, so nobody can choose keys that fill one bucket.
type keyTable struct {
	dir  string
	seed maphash.Seed
	f    *os.File
	bits uint // there are 1<<bits buckets
}

const (
	slotSize    = 16
	bucketSlots = 64
	bucketSize  = slotSize * bucketSlots

	keysPattern = "keys-*"

	// Buckets that are read and written together when many keys are added.
	regionBits = 6
)

// A keyEntry is what a slot holds.
type keyEntry struct {
	hash   uint32
	id     int64
	offset int64
}

func (e keyEntry) put(slot []byte) {
	binary.LittleEndian.PutUint32(slot, e.hash)
	id := uint64(e.id + 1)
	binary.LittleEndian.PutUint32(slot[4:], uint32(id))
	binary.LittleEndian.PutUint64(slot[8:], id>>32|uint64(e.offset)<<8)
}

// getSlot reads a slot; one that is free has the number -1.
func getSlot(slot []byte) keyEntry {
	high := binary.LittleEndian.Uint64(slot[8:])
	id := uint64(binary.LittleEndian.Uint32(slot[4:])) | high&0xff<<32
	return keyEntry{binary.LittleEndian.Uint32(slot), int64(id) - 1, int64(high >> 8)}
}

// newKeyTable makes an empty table, and removes those of earlier runs.
func newKeyTable(dir string) (*keyTable, error) {
	old, err := filepath.Glob(filepath.Join(dir, keysPattern))
	if err != nil {
		return nil, err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return nil, fmt.Errorf("removing the table of keys of an earlier run: %w", err)
		}
	}
	t := &keyTable{dir: dir, seed: maphash.MakeSeed()}
	if t.f, err = t.create(0); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *keyTable) create(bits uint) (*os.File, error) {
	f, err := os.CreateTemp(t.dir, keysPattern)
	if err == nil {
		err = f.Truncate(bucketSize << bits)
	}
	if err != nil {
		err = fmt.Errorf("making the table of keys: %w", err)
		if f != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
		return nil, err
	}
	return f, nil
}

func (t *keyTable) close() error {
	return errors.Join(t.f.Close(), os.Remove(t.f.Name()))
}

func (t *keyTable) hash(key string) uint32 { return uint32(maphash.String(t.seed, key) >> 32) }

// bucket returns the number of the bucket of a hash.
func (t *keyTable) bucket(hash uint32) int64 { return int64(uint64(hash) >> (32 - t.bits)) }

var bucketPool = sync.Pool{New: func() any { return new([bucketSize]byte) }}

// find returns the slots that a key may be in; few keys have the same hash.
func (t *keyTable) find(key string, each func(keyEntry) (stop bool, err error)) error {
	hash := t.hash(key)
	buf := bucketPool.Get().(*[bucketSize]byte)
	defer bucketPool.Put(buf)
	if _, err := t.f.ReadAt(buf[:], t.bucket(hash)*bucketSize); err != nil {
		return fmt.Errorf("reading the table of keys: %w", err)
	}
	for slot := range slices.Chunk(buf[:], slotSize) {
		e := getSlot(slot)
		if e.id < 0 {
			return nil
		}
		if e.hash != hash {
			continue
		}
		if stop, err := each(e); stop || err != nil {
			return err
		}
	}
	return nil
}

// add puts entries in and sorts them. Entries that are there already are not
// added again, so what failed can be repeated.
func (t *keyTable) add(entries []keyEntry) error {
	slices.SortFunc(entries, func(a, b keyEntry) int { return cmp.Compare(a.hash, b.hash) })
	var buf []byte
	for len(entries) > 0 {
		region := uint(0)
		if t.bits >= regionBits && len(entries)>>(t.bits-regionBits) > 8 {
			region = regionBits
		}
		at := t.bucket(entries[0].hash) >> region << region * bucketSize
		buf = slices.Grow(buf[:0], bucketSize<<region)[:bucketSize<<region]
		if _, err := t.f.ReadAt(buf, at); err != nil {
			return fmt.Errorf("reading the table of keys: %w", err)
		}
		full := false
		for len(entries) > 0 && !full {
			at := t.bucket(entries[0].hash)*bucketSize - at
			if at >= int64(len(buf)) {
				break
			}
			if full = !addTo(buf[at:at+bucketSize], entries[0]); !full {
				entries = entries[1:]
			}
		}
		if _, err := t.f.WriteAt(buf, at); err != nil {
			return fmt.Errorf("writing the table of keys: %w", err)
		}
		if full {
			if err := t.grow(); err != nil {
				return err
			}
		}
	}
	return nil
}

// addTo puts an entry into a bucket unless it is full.
func addTo(bucket []byte, e keyEntry) bool {
	for slot := range slices.Chunk(bucket, slotSize) {
		have := getSlot(slot)
		if have.id < 0 {
			e.put(slot)
			return true
		}
		if have == e {
			return true
		}
	}
	return false
}

// grow doubles the table.
func (t *keyTable) grow() error {
	if t.bits >= 31 {
		return errors.New("the table of keys is full")
	}
	f, err := t.create(t.bits + 1)
	if err != nil {
		return err
	}
	if err := t.split(f); err != nil {
		return errors.Join(fmt.Errorf("doubling the table of keys: %w", err), f.Close(), os.Remove(f.Name()))
	}
	old := t.f
	t.f = f
	t.bits++
	return errors.Join(old.Close(), os.Remove(old.Name()))
}

// split writes a table of twice as many buckets.
func (t *keyTable) split(f *os.File) error {
	const step = 64 // buckets
	old := make([]byte, step*bucketSize)
	two := make([]byte, 2*step*bucketSize)
	for first := int64(0); first < 1<<t.bits; first += step {
		n, err := t.f.ReadAt(old[:min(step, 1<<t.bits-first)*bucketSize], first*bucketSize)
		if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			return err
		}
		clear(two)
		for i, bucket := range slices.Collect(slices.Chunk(old[:n], bucketSize)) {
			halves := [2][]byte{two[2*i*bucketSize : (2*i+1)*bucketSize], two[(2*i+1)*bucketSize : (2*i+2)*bucketSize]}
			for slot := range slices.Chunk(bucket, slotSize) {
				e := getSlot(slot)
				if e.id < 0 {
					break
				}
				half := &halves[e.hash>>(31-t.bits)&1]
				copy(*half, slot)
				*half = (*half)[slotSize:]
			}
		}
		if _, err := f.WriteAt(two[:2*n], 2*first*bucketSize); err != nil {
			return err
		}
	}
	return nil
}
