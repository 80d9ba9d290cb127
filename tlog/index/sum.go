package index

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// A sum tells what a bucket holds, whatever the order: how many keys, and the
// sum of a hash of each with its value. It is kept up to date with each change
// and stored with it, and what is in the bucket must come out as the same: a
// disk that loses a write leaves blocks that are whole but old.
type sum struct {
	Count int64
	Hash  uint64
}

func (s *sum) add(key, value []byte) {
	s.Count++
	s.Hash += pairHash(key, value)
}

func (s *sum) remove(key, value []byte) {
	s.Count--
	s.Hash -= pairHash(key, value)
}

// pairHash is a hash of a key and its value, whose sum is one: the finalizer of
// MurmurHash3 over a CRC and the lengths.
func pairHash(key, value []byte) uint64 {
	h := uint64(crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value))<<32 | uint64(uint16(len(key)))<<16 | uint64(uint16(len(value)))
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// put sets a key of a bucket that had none.
func (s *sum) put(b *bbolt.Bucket, key, value []byte) error {
	s.add(key, value)
	return b.Put(key, value)
}

// check compares a bucket with its sum.
func (s sum) check(b *bbolt.Bucket) error {
	if b == nil {
		return damaged("a part is missing")
	}
	var got sum
	err := b.ForEach(func(k, v []byte) error {
		got.add(k, v)
		return nil
	})
	if err == nil && got != s {
		err = damaged("a part has %d values, not the %d that were written", got.Count, s.Count)
	}
	return err
}

// sums are those of all buckets but the one that they are in.
type sums struct{ Modules, Hosts, Toolchains, Journal, Events, Watched sum }

// of returns the sum of a bucket, nil for the one that the sums are in.
func (s *sums) of(name []byte) *sum {
	switch string(name) {
	case string(bucketModules):
		return &s.Modules
	case string(bucketHosts):
		return &s.Hosts
	case string(bucketTools):
		return &s.Toolchains
	case string(bucketJournal):
		return &s.Journal
	case string(bucketEvents):
		return &s.Events
	case string(bucketWatched):
		return &s.Watched
	}
	return nil
}

// Values of the bucket of meta data carry a checksum, and none may be missing.

func putMeta(tx *bbolt.Tx, key, value []byte) error {
	value = binary.LittleEndian.AppendUint32(value[:len(value):len(value)], blockSum(key, value))
	return tx.Bucket(bucketMeta).Put(key, value)
}

func getMeta(tx *bbolt.Tx, key []byte) ([]byte, error) {
	b := tx.Bucket(bucketMeta)
	if b == nil {
		return nil, damaged("a part is missing")
	}
	v := b.Get(key)
	n := len(v) - 4
	if n < 0 || blockSum(key, v[:n]) != binary.LittleEndian.Uint32(v[n:]) {
		return nil, damaged("its %s can't be read", key)
	}
	return v[:n], nil
}

func getSums(tx *bbolt.Tx) (s sums, err error) {
	v, err := getMeta(tx, keySums)
	if err == nil && json.Unmarshal(v, &s) != nil {
		err = damaged("its sums can't be read")
	}
	return s, err
}

func putSums(tx *bbolt.Tx, s sums) error {
	v, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return putMeta(tx, keySums, v)
}

func getPosition(tx *bbolt.Tx, key []byte) (p position, err error) {
	v, err := getMeta(tx, key)
	if err != nil {
		return p, err
	}
	if err := p.decode(v); err != nil {
		return p, damaged("%s: %v", key, err)
	}
	return p, nil
}

func putPosition(tx *bbolt.Tx, key []byte, p *position) error {
	v, err := p.encode()
	if err != nil {
		return err
	}
	return putMeta(tx, key, v)
}
