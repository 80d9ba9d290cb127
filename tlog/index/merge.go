package index

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// A batch is what was collected and is not yet in the blocks.
type batch struct {
	pos    position // up to which it goes
	delta  *delta
	tools  map[string]toolchainRecord
	polled []string // modules polled
	events []Event
}

// startBatch begins to collect anew.
func (s *Store) startBatch() {
	s.delta, s.spare = s.spare, nil
	if s.delta == nil {
		s.delta = newDelta()
	}
	s.adopt()
	s.tools, s.polled, s.events = map[string]toolchainRecord{}, nil, nil
}

// adopt has the delta report to the batch that is collected.
func (s *Store) adopt() { s.delta.conflict = s.conflictOf(&s.batch) }

// commit stores what was collected, with the position. While much is still to
// come it goes to the journal; when it is to be shown to queries, or is much,
// into the blocks.
func (s *Store) commit(show bool) error {
	if show || s.full() {
		return s.merge()
	}
	return s.writeJournal(&s.batch)
}

// full reports whether so much was collected that it is to be merged.
func (s *Store) full() bool {
	return s.delta.size() >= s.opts.MergeBytes || s.journalSize >= s.opts.MergeBytes
}

// slim gives back the memory of a long reading.
func (s *Store) slim() {
	if s.spare = nil; len(s.delta.mods) == 0 && cap(s.delta.mods) > slimModules {
		s.delta = newDelta()
		s.adopt()
	}
}

const slimModules = 1 << 14

// merge moves what was collected into the blocks and shows the result. Queries
// see the state before until all of it is done, which may cost the file the
// size of what is replaced.
func (s *Store) merge() error {
	order := s.delta.sorted()
	if len(order) > s.opts.MergeModules && (!s.pos.Merging || len(s.delta.dirty) > 0) {
		// Half-way, the blocks must hold nothing that the journal doesn't.
		if err := s.writeJournal(&s.batch); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := s.mergeBatch(&s.batch, order); err != nil {
		return err
	}
	s.delta.reset()
	clear(s.tools)
	s.polled, s.events = nil, nil
	s.journalSize = 0
	s.merged, s.mergeTook = time.Now(), time.Since(start)
	return nil
}

// mergeBatch merges a batch. It may be interrupted between its transactions:
// the position says so, and since merging again changes nothing, the next merge
// makes it whole.
func (s *Store) mergeBatch(b *batch, order []uint32) error {
	for first := true; first || len(order) > 0; first = false {
		n := min(len(order), s.opts.MergeModules)
		if err := s.mergePart(b, order[:n], n == len(order)); err != nil {
			return fmt.Errorf("merging into the index: %w", err)
		}
		if order = order[n:]; len(order) > 0 {
			s.db.forget()
		}
	}
	s.changes.note(b.delta)
	return s.newView()
}

func (s *Store) mergePart(b *batch, order []uint32, last bool) error {
	b.pos.Merging = !last
	err := s.update(func(tx *bbolt.Tx, sums *sums) error {
		m := merger{d: b.delta, order: order, bucket: tx.Bucket(bucketModules), sum: &sums.Modules}
		if err := m.run(); err != nil {
			return err
		}
		if err := mergeHosts(tx.Bucket(bucketHosts), &sums.Hosts, m.newHosts); err != nil {
			return err
		}
		if !last {
			// The journal stays, and so does its position.
			stored, err := getPosition(tx, keyPosition)
			if err != nil {
				return err
			}
			stored.Merging = true
			return putPosition(tx, keyPosition, &stored)
		}
		if err := mergeToolchains(tx.Bucket(bucketTools), &sums.Toolchains, b.tools); err != nil {
			return err
		}
		if err := storeEvents(tx.Bucket(bucketEvents), &sums.Events, b.events); err != nil {
			return err
		}
		if err := storePolled(tx.Bucket(bucketWatched), &sums.Watched, b.polled); err != nil {
			return err
		}
		if err := clearBucket(tx, bucketJournal); err != nil {
			return err
		}
		sums.Journal = sum{}
		return errors.Join(putPosition(tx, keyPosition, &b.pos), putPosition(tx, keyView, &b.pos))
	})
	if err != nil {
		b.pos.Merging = true // the blocks may hold a part
	}
	return err
}

// update runs a write transaction; a panic of bbolt at a damaged page is an error.
func (s *Store) update(f func(tx *bbolt.Tx, sums *sums) error) (err error) {
	defer catch(&err)()
	if s.view != nil { // else it is being opened
		<-s.checked
	}
	if s.damaged.Load() {
		return ErrCorrupt
	}
	if err := s.readers.heed(s.db.DB); err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		if tx.Size() > int64(mapSize())-roomInMap() {
			return fmt.Errorf("the index has %d MB, and no more than %d MB can be used on this system", tx.Size()>>20, (int64(mapSize())-roomInMap())>>20)
		}
		before, err := getSums(tx)
		if err != nil {
			return err
		}
		after := before
		if err := f(tx, &after); err != nil || after == before {
			return err
		}
		return putSums(tx, after)
	})
}

func clearBucket(tx *bbolt.Tx, name []byte) error {
	if k, _ := tx.Bucket(name).Cursor().First(); k == nil {
		return nil
	}
	if err := tx.DeleteBucket(name); err != nil {
		return err
	}
	_, err := tx.CreateBucket(name)
	return err
}

// fillPercent is how full pages are made.
const fillPercent = 0.95

// A merger moves sorted modules of a delta into the blocks, within a transaction.
type merger struct {
	d      *delta
	order  []uint32
	bucket *bbolt.Bucket
	sum    *sum

	cursor   *bbolt.Cursor
	in       blockReader
	out      blockWriter
	limit    int // size at which a block is finished
	list     []entry
	low      []byte
	host     []byte              // of the module added last
	newHosts map[string]struct{} // of modules added
}

// addFirstBlock makes the block that is in charge of everything.
func addFirstBlock(b *bbolt.Bucket, sum *sum) error {
	var w blockWriter
	w.reset(nil)
	return sum.put(b, topKey, w.finish(topKey))
}

func (m *merger) run() error {
	m.cursor = m.bucket.Cursor()
	m.bucket.FillPercent = fillPercent
	warm := 0 // so many modules of order
	for len(m.order) > 0 {
		if warm <= 0 {
			warm = min(warmAhead, len(m.order))
			m.d.warmModules(m.order[:warm])
		}
		path := m.path(0)
		key, block := m.cursor.Seek(path)
		if err := m.in.openFor(path, key, block); err != nil {
			return err
		}
		n := 1
		for n < len(m.order) && bytes.Compare(m.path(n), key) <= 0 {
			n++
		}
		if err := m.rewrite(bytes.Clone(key), block, m.order[:n]); err != nil {
			return err
		}
		m.order, warm = m.order[n:], warm-n
	}
	return nil
}

func (m *merger) path(i int) []byte { return m.d.mods[m.order[i]].path.of(m.d.arena) }

// rewrite replaces a block by one or more that hold new modules too.
func (m *merger) rewrite(key, block []byte, mods []uint32) error {
	if err := m.in.open(key, block); err != nil {
		return err
	}
	ok, err := m.in.next()
	if err != nil {
		return err
	}
	m.sum.remove(key, block)
	// Parts of about the same size; some room is left to grow.
	size := len(block) + len(mods)*64
	m.limit = size/(1+size/(blockSize*3/2)) + 1
	m.limit = min(max(m.limit, blockSize/2), blockSize)
	m.out.reset(m.in.low)
	for ok || len(mods) > 0 {
		c := 1 // which comes next: -1 the block's module, 1 the delta's, 0 they are the same
		if ok {
			c = -1
			if len(mods) > 0 {
				c = bytes.Compare(m.in.path, m.d.mods[mods[0]].path.of(m.d.arena))
			}
		}
		if c < 0 {
			m.out.addRaw(m.in.path, m.in.entries)
		} else {
			arena := m.d.arena
			m.list = m.list[:0]
			if c == 0 {
				if m.list, arena, err = m.in.list(m.list, arena); err != nil {
					return err
				}
			}
			path := m.d.mods[mods[0]].path.of(m.d.arena)
			m.join(path, m.d.list(mods[0]), arena)
			mods = mods[1:]
			if c > 0 {
				m.added(path)
			}
			m.out.add(path, m.list, arena)
			m.d.arena = arena[:len(m.d.arena)]
		}
		if c <= 0 {
			if ok, err = m.in.next(); err != nil {
				return err
			}
		}
		if len(m.out.b) >= m.limit && (ok || len(mods) > 0) {
			m.low = append(m.low[:0], m.out.last...)
			if err := m.put(m.low); err != nil {
				return err
			}
			m.out.reset(m.low)
		}
	}
	return m.put(key)
}

// put stores the block that was made, in charge of what lies up to key.
func (m *merger) put(key []byte) error {
	block := bytes.Clone(m.out.finish(key))
	return m.sum.put(m.bucket, key, block)
}

// join puts the delta's entries of a module into the list.
func (m *merger) join(path []byte, l []entry, arena []byte) {
	if len(m.list) == 0 {
		m.list = append(m.list, l...)
		return
	}
	for _, e := range l {
		var other *entry
		if m.list, other = insert(m.list, e, arena); other != nil && other.tag != e.tag {
			m.d.conflict(path, *other, e, arena)
		}
	}
}

// added notes the host of a new module.
func (m *merger) added(path []byte) {
	host, _, _ := bytes.Cut(path, []byte("/"))
	if bytes.Equal(host, m.host) {
		return
	}
	m.host = append(m.host[:0], host...)
	if m.newHosts == nil {
		m.newHosts = map[string]struct{}{}
	}
	m.newHosts[string(host)] = struct{}{}
}

// mergeHosts adds hosts to their blocks.
func mergeHosts(b *bbolt.Bucket, sum *sum, hosts map[string]struct{}) error {
	d := newDelta()
	var key []byte
	var block blockReader
	c := b.Cursor()
	for host := range hosts {
		key = appendHostKey(key[:0], host)
		k, v := c.Seek(key)
		if err := block.openFor(key, k, v); err != nil {
			return err
		}
		if ok, err := block.seek(key); err != nil {
			return err
		} else if !ok || !bytes.Equal(block.path, key) {
			d.mods = append(d.mods, deltaModule{path: d.keep(key)})
		}
	}
	m := merger{d: d, order: d.sorted(), bucket: b, sum: sum}
	return m.run()
}
