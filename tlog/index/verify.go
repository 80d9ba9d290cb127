package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
)

// catch returns a function to defer that makes an error of a panic: bbolt
// panics at a page that is none, and reading a mapped file that was cut short
// faults.
func catch(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w (%v)", ErrCorrupt, r)
		}
	}
}

// Verify reads the whole file and checks that it is what was written: every
// page, every block and the sums of all that was stored. When it finds damage,
// the index gives no more answers: none is better than a wrong one. It is
// called once in the background by [Open].
//
// Until it has ended, damage is noticed where a question meets it: the pages
// that lead to the blocks were checked by Open, and a block has a checksum and
// says what it is in charge of. What only Verify notices is a block that is
// whole, in its place, and older than it should be, since the disk lost a write.
func (s *Store) Verify() (err error) {
	err = s.verify()
	if err != nil && err != errClosed {
		s.damaged.Store(true)
		err = fmt.Errorf("checking the index: %w", err)
	}
	return err
}

func (s *Store) verify() (err error) {
	defer catch(&err)()
	tx, done, err := s.checkedTx(true)
	if err != nil {
		return err
	}
	defer done()
	sums, err := getSums(tx)
	if err != nil {
		return err
	}
	for _, b := range []struct {
		name []byte
		sum  sum
	}{{bucketTools, sums.Toolchains}, {bucketJournal, sums.Journal}, {bucketEvents, sums.Events}, {bucketWatched, sums.Watched}} {
		if err := b.sum.check(tx.Bucket(b.name)); err != nil {
			return err
		}
	}
	if err := s.verifyBlocks(tx.Bucket(bucketHosts), sums.Hosts); err != nil {
		return err
	}
	return s.verifyBlocks(tx.Bucket(bucketModules), sums.Modules)
}

// checkedTx begins a transaction whose pages it has checked, with those of the
// leaves or without.
func (s *Store) checkedTx(leaves bool) (_ *bbolt.Tx, done func(), err error) {
	s.mu.RLock()
	db := s.db
	db.long.Add(1)
	s.mu.RUnlock()
	defer func() {
		if err != nil {
			db.long.Done()
		}
	}()
	for range 100 {
		tx, err := db.Begin(false)
		if err != nil {
			return nil, nil, err
		}
		fi, err := db.pages.Stat()
		found := false
		if err == nil {
			_, found, err = checkPages(db.pages, fi.Size(), uint64(tx.ID()), leaves, s.closing)
		}
		if err == nil && found {
			return tx, func() { tx.Rollback(); db.long.Done() }, nil
		}
		tx.Rollback()
		if err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("it changes too fast to be checked") // two commits after each Begin
}

// verifyBlocks checks that the blocks share out all paths, in order, and are
// what was stored, and that each is found.
func (s *Store) verifyBlocks(b *bbolt.Bucket, want sum) error {
	if b == nil {
		return damaged("a part is missing")
	}
	var got sum
	var low, last []byte
	seek, c := b.Cursor(), b.Cursor()
	var br blockReader
	for k, v := c.First(); k != nil; k, v = c.Next() {
		select {
		case <-s.closing:
			return errClosed
		default:
		}
		if err := br.open(k, v); err != nil {
			return err
		}
		got.add(k, v)
		if !bytes.Equal(br.low, low) {
			return damaged("block %q does not follow %q", k, low)
		}
		low = append(low[:0], k...)
		for {
			ok, err := br.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if bytes.Compare(br.path, last) <= 0 || bytes.Compare(br.path, k) > 0 {
				return damaged("%q is out of order", br.path)
			}
			last = append(last[:0], br.path...)
		}
		if found, _ := seek.Seek(k); !bytes.Equal(found, k) {
			return damaged("block %q is not found", k)
		}
	}
	if got != want || !bytes.Equal(low, topKey) {
		return damaged("a part has %d blocks, not the %d that were written", got.Count, want.Count)
	}
	return nil
}

// eachModule calls f for each path in the blocks.
func eachModule(b *bbolt.Bucket, f func(*blockReader) error) error {
	var br blockReader
	var low []byte
	err := b.ForEach(func(k, v []byte) error {
		if err := br.open(k, v); err != nil {
			return err
		}
		if !bytes.Equal(br.low, low) {
			return damaged("block %q does not follow %q", k, low)
		}
		low = append(low[:0], k...)
		for {
			ok, err := br.next()
			if err != nil || !ok {
				return err
			}
			if err := f(&br); err != nil {
				return err
			}
		}
	})
	if err == nil && !bytes.Equal(low, topKey) {
		err = damaged("no block follows %q", low)
	}
	return err
}

// Count returns the number of modules. It reads the whole index.
func (s *Store) Count(ctx context.Context) (n int64, err error) {
	v, err := s.hold()
	if err != nil {
		return 0, err
	}
	defer v.release()
	defer catch(&err)()
	err = eachModule(v.modules, func(*blockReader) error {
		n++
		return ctx.Err()
	})
	return n, err
}
