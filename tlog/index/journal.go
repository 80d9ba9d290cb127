package index

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"

	"go.etcd.io/bbolt"
)

// A journal entry holds the modules changed since the one before, each with all
// entries that the delta has for it, then toolchains. Reading all journal
// entries in any order gives the delta again.

// journalChunk bounds one value in the journal.
const journalChunk = 4 << 20

func (s *Store) writeJournal(collected *batch) error {
	next, size := s.journaled, int64(0)
	err := s.update(func(tx *bbolt.Tx, sums *sums) error {
		j := tx.Bucket(bucketJournal)
		put := func(b []byte) error {
			next++
			size += int64(len(b))
			b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
			return sums.Journal.put(j, binary.BigEndian.AppendUint64(nil, next), b)
		}
		b := make([]byte, 0, journalChunk+64<<10)
		d := collected.delta
		for i, m := range d.dirty {
			if i%warmAhead == 0 {
				d.warmModules(d.dirty[i:min(i+warmAhead, len(d.dirty))])
			}
			path, l := d.mods[m].path.of(d.arena), d.list(m)
			b = binary.AppendUvarint(b, uint64(len(path)))
			b = append(b, path...)
			b = binary.AppendUvarint(b, uint64(len(l)))
			for i := range l {
				b = appendEntry(b, &l[i], d.arena)
			}
			if len(b) >= journalChunk {
				if err := put(b); err != nil {
					return err
				}
				b = make([]byte, 0, cap(b)) // bbolt keeps the old one until the end
			}
		}
		b = binary.AppendUvarint(b, 0)
		for v, t := range collected.tools {
			b = binary.AppendUvarint(b, uint64(len(v)))
			b = append(b, v...)
			b = binary.AppendVarint(binary.AppendVarint(b, t.time), t.record)
		}
		if err := put(b); err != nil {
			return err
		}
		if err := storeEvents(tx.Bucket(bucketEvents), &sums.Events, collected.events); err != nil {
			return err
		}
		return putPosition(tx, keyPosition, &collected.pos)
	})
	if err != nil {
		return fmt.Errorf("writing the journal of the index: %w", err)
	}
	s.journaled = next
	s.journalSize += size
	collected.events = nil
	collected.delta.clean()
	return nil
}

// readJournal fills the delta.
func (s *Store) readJournal() error {
	return s.db.View(func(tx *bbolt.Tx) (err error) {
		if s.pos, err = getPosition(tx, keyPosition); err != nil {
			return err
		}
		sums, err := getSums(tx)
		if err != nil {
			return err
		}
		if err := sums.Journal.check(tx.Bucket(bucketJournal)); err != nil {
			return err
		}
		return tx.Bucket(bucketJournal).ForEach(func(k, v []byte) error {
			if len(v) < 4 || len(k) != 8 {
				return ErrCorrupt
			}
			sum := binary.LittleEndian.Uint32(v[len(v)-4:])
			v = v[:len(v)-4]
			if crc32.Checksum(v, castagnoli) != sum {
				return ErrCorrupt
			}
			s.journaled = binary.BigEndian.Uint64(k)
			s.journalSize += int64(len(v))
			return s.replay(&reader{b: v})
		})
	})
}

func (s *Store) replay(r *reader) error {
	d := s.delta
	for len(r.b) > 0 {
		path := r.bytes(r.uvarint())
		if len(path) == 0 {
			break
		}
		m, ok := d.find(maphash.Bytes(seed, path), path)
		if !ok {
			return ErrCorrupt
		}
		for range r.uvarint() {
			e, pre := r.entry()
			if r.bad {
				return ErrCorrupt
			}
			if len(pre) > 0 {
				e.pre = d.keep(pre)
			}
			d.put(m, e)
		}
	}
	for len(r.b) > 0 {
		v := string(r.bytes(r.uvarint()))
		t := toolchainRecord{r.varint(), r.varint()}
		s.noteToolchain(v, t)
	}
	if r.bad {
		return ErrCorrupt
	}
	d.clean() // it is in the journal
	return nil
}
