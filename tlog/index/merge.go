package index

import (
	"bytes"
	"fmt"
	"log/slog"

	"go.etcd.io/bbolt"
)

// commit stores what was collected, with the position. While much is still to
// come it goes to the journal; at the end, or when it is much, into the blocks.
func (s *Store) commit(caughtUp bool) error {
	if caughtUp || s.delta.size() >= s.opts.MergeBytes || s.journalSize >= s.opts.MergeBytes {
		return s.merge()
	}
	return s.writeJournal()
}

// merge moves the delta into the blocks and shows the result. It may be
// interrupted between its transactions: the position says so, and since
// merging again changes nothing, the next merge makes it whole. While much is
// merged, queries find some modules newer than the head says.
func (s *Store) merge() error {
	order := s.delta.sorted()
	if len(order) > s.opts.MergeModules && !s.pos.Merging {
		if err := s.writeJournal(); err != nil { // what is merged must not be lost half-way
			return err
		}
	}
	for first := true; first || len(order) > 0; first = false {
		n := min(len(order), s.opts.MergeModules)
		if err := s.mergePart(order[:n], n == len(order)); err != nil {
			return fmt.Errorf("merging into the index: %w", err)
		}
		order = order[n:]
		if len(order) > 0 {
			// The old pages are free once no query reads them: else the file would
			// grow to twice its size.
			if err := s.newView(); err != nil {
				return err
			}
		}
	}
	s.delta.reset()
	clear(s.tools)
	s.journalSize = 0
	s.events, s.polled = nil, nil
	return s.newView()
}

func (s *Store) mergePart(order []uint32, last bool) error {
	s.pos.Merging = !last
	err := s.update(func(tx *bbolt.Tx) error {
		m := merger{d: s.delta, order: order, modules: tx.Bucket(bucketModules), hosts: tx.Bucket(bucketHosts)}
		if err := m.run(); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		if !last {
			// The journal stays, and so does its position.
			stored := position{}
			if err := stored.decode(meta.Get(keyPosition)); err != nil {
				return err
			}
			stored.Merging = true
			pos, err := stored.encode()
			if err != nil {
				return err
			}
			return meta.Put(keyPosition, pos)
		}
		if err := s.mergeToolchains(tx.Bucket(bucketTools)); err != nil {
			return err
		}
		if err := s.storeEvents(tx.Bucket(bucketEvents)); err != nil {
			return err
		}
		if err := s.storePolled(tx.Bucket(bucketWatched)); err != nil {
			return err
		}
		if err := clearBucket(tx, bucketJournal); err != nil {
			return err
		}
		pos, err := s.pos.encode()
		if err != nil {
			return err
		}
		if err := meta.Put(keyPosition, pos); err != nil {
			return err
		}
		return meta.Put(keyView, pos)
	})
	if err != nil {
		s.pos.Merging = true // the blocks may hold a part
	}
	return err
}

// update runs a write transaction; a panic of bbolt at a damaged page is an error.
func (s *Store) update(f func(tx *bbolt.Tx) error) (err error) {
	defer catch(&err)()
	return s.db.Update(f)
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

// A merger moves sorted modules of a delta into the blocks, within a transaction.
type merger struct {
	d              *delta
	order          []uint32
	modules, hosts *bbolt.Bucket

	cursor *bbolt.Cursor
	in     blockReader
	out    blockWriter
	limit  int // size at which a block is finished
	list   []entry
	host   []byte
	key    []byte
}

func (m *merger) run() error {
	m.cursor = m.modules.Cursor()
	m.modules.FillPercent = 0.95
	for len(m.order) > 0 {
		// The block for a path is the first one that ends at or behind it; what is
		// behind the end of all goes into the last.
		key, block := m.cursor.Seek(m.path(0))
		n := len(m.order)
		if key == nil {
			key, block = m.cursor.Last()
		} else {
			for n = 1; n < len(m.order) && bytes.Compare(m.path(n), key) <= 0; n++ {
			}
		}
		if err := m.rewrite(bytes.Clone(key), bytes.Clone(block), m.order[:n]); err != nil {
			return err
		}
		m.order = m.order[n:]
	}
	return nil
}

func (m *merger) path(i int) []byte { return m.d.mods[m.order[i]].path.of(m.d.arena) }

// rewrite replaces a block (nil: none) by one or more that hold new modules too.
func (m *merger) rewrite(key, block []byte, mods []uint32) error {
	ok := false
	if block != nil {
		if err := m.in.open(key, block); err != nil {
			return err
		}
		var err error
		if ok, err = m.in.next(); err != nil {
			return err
		}
	}
	// Parts of about the same size; some room is left to grow.
	size := len(block) + len(mods)*64
	m.limit = size/(1+size/(blockSize*3/2)) + 1
	m.limit = min(max(m.limit, blockSize/2), blockSize)
	m.out.reset()
	replaced := false
	for ok || len(mods) > 0 {
		c := 1 // which comes next: -1 the block's module, 1 the delta's, 0 they are the same
		if ok {
			c = -1
			if len(mods) > 0 {
				c = bytes.Compare(m.in.path, m.d.mods[mods[0]].path.of(m.d.arena))
			}
		}
		arena := m.d.arena
		path := m.in.path
		m.list = m.list[:0]
		if c <= 0 {
			var err error
			if m.list, arena, err = m.in.list(m.list, arena); err != nil {
				return err
			}
		}
		if c >= 0 {
			dm := &m.d.mods[mods[0]]
			path = dm.path.of(m.d.arena)
			m.join(path, dm.head, arena)
			mods = mods[1:]
			if c > 0 {
				if err := m.addHost(path); err != nil {
					return err
				}
			}
		}
		m.out.add(path, m.list, arena)
		m.d.arena = arena[:len(m.d.arena)]
		if c <= 0 {
			var err error
			if ok, err = m.in.next(); err != nil {
				return err
			}
		}
		if len(m.out.b) >= m.limit || !ok && len(mods) == 0 {
			replaced = replaced || bytes.Equal(m.out.last, key)
			if err := m.modules.Put(m.out.last, bytes.Clone(m.out.finish())); err != nil {
				return err
			}
			m.out.reset()
		}
	}
	if key != nil && !replaced {
		return m.modules.Delete(key)
	}
	return nil
}

// join puts the delta's entries of a module into the list.
func (m *merger) join(path []byte, head int32, arena []byte) {
	for i := head; i >= 0; i = m.d.entries[i].next {
		e := m.d.entries[i]
		if len(m.list) == 0 {
			for ; i >= 0; i = m.d.entries[i].next { // nothing to join with
				m.list = append(m.list, m.d.entries[i])
			}
			return
		}
		var other *entry
		if m.list, other = insert(m.list, e, arena); other != nil && other.tag != e.tag {
			m.d.conflict(path, *other, e, arena)
		}
	}
}

// addHost notes the host of a new module.
func (m *merger) addHost(path []byte) error {
	host, _, _ := bytes.Cut(path, []byte("/"))
	if bytes.Equal(host, m.host) {
		return nil
	}
	m.host = append(m.host[:0], host...)
	m.key = appendHostKey(m.key[:0], string(host))
	if m.hosts.Get(m.key) != nil {
		return nil
	}
	return m.hosts.Put(bytes.Clone(m.key), []byte{})
}

func (s *Store) conflict(path []byte, have, got entry, arena []byte) {
	v := string(appendVersion(nil, got.ver, got.pre.of(arena)))
	s.event(Event{Kind: "duplicate", Module: string(path), Version: v, Records: []int64{have.record, got.record},
		Text: fmt.Sprintf("the log has two records with different hashes for %s %s: %d and %d", path, v, have.record, got.record)})
}

// logAttrs of an event.
func (e Event) logAttrs() []any {
	return []any{slog.String("kind", e.Kind), slog.String("module", e.Module), slog.String("version", e.Version), slog.Any("records", e.Records)}
}
