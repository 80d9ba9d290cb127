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

// Verify reads the whole index and checks that every module can be found.
// bbolt has no checksums of its own, and a damaged key would hide what lies
// behind it. When it finds damage, the index gives no more answers: none is
// better than a wrong one. It is called once in the background by [Open].
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
	return s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketModules)
		if b == nil {
			return nil
		}
		seek, c := b.Cursor(), b.Cursor()
		var br blockReader
		var last []byte
		for k, v := c.First(); k != nil; k, v = c.Next() {
			select {
			case <-s.closing:
				return errClosed
			default:
			}
			if err := br.open(k, v); err != nil {
				return err
			}
			for {
				ok, err := br.next()
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				if bytes.Compare(br.path, last) <= 0 {
					return fmt.Errorf("%w (module %q is out of order)", ErrCorrupt, br.path)
				}
				last = append(last[:0], br.path...)
			}
			if found, _ := seek.Seek(k); !bytes.Equal(last, k) || !bytes.Equal(found, k) {
				return fmt.Errorf("%w (block %q is not found)", ErrCorrupt, k)
			}
		}
		return nil
	})
}

// Count returns the number of modules. It reads the whole index.
func (s *Store) Count(ctx context.Context) (n int64, err error) {
	defer catch(&err)()
	err = s.db.View(func(tx *bbolt.Tx) error {
		var br blockReader
		return tx.Bucket(bucketModules).ForEach(func(k, v []byte) error {
			if err := br.open(k, v); err != nil {
				return err
			}
			for {
				ok, err := br.next()
				if err != nil || !ok {
					return errors.Join(err, ctx.Err())
				}
				n++
			}
		})
	})
	return n, err
}
