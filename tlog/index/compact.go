package index

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"

	"example.org/upkeep/internal/durable"
)

// A file never gets smaller, and while a long log is read it grows to more than
// twice what is in it: a merge keeps what it replaces until its end, so that
// queries see one state. So when more than a third of a file is free, its content is
// written to FILE.new, synced, and renamed to FILE. Whoever reads the old
// file, here or in another process, has a whole state and goes on with it.

const (
	compactFree  = 64 << 20  // so much must be free
	compactBatch = 16 << 20  // written in one transaction
	compactPause = time.Hour // after a failure, on a full disk for example
)

// canCompact: Windows renames nothing to a file that is mapped, and two maps
// don't fit into 32 bits.
const canCompact = runtime.GOOS != "windows" && math.MaxInt > math.MaxInt32

// compact writes the file anew when that makes it much smaller. Everything that
// was collected must have been merged.
func (s *Store) compact() error {
	if !canCompact || time.Now().Before(s.compactAfter) {
		return nil
	}
	var size int64
	err := s.db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err != nil {
		return err
	}
	stats := s.db.Stats()
	if free := int64(stats.FreePageN+stats.PendingPageN) * pageSize; free < s.opts.compactFree || free < size/3 {
		return nil
	}
	db, err := s.writeAnew()
	if err != nil {
		s.compactAfter = time.Now().Add(compactPause)
		if errors.Is(err, ErrCorrupt) {
			s.damaged.Store(true)
			return fmt.Errorf("writing the index anew: %w", err)
		}
		s.log.Warn("the index can't be written anew and stays larger than it need be", "file", s.file, "err", err)
		return nil
	}
	err = s.readers.unpin() // nobody writes into the old file any more
	old := s.db
	s.mu.Lock()
	s.db = db
	s.mu.Unlock()
	s.checks.Go(func() {
		old.long.Wait()
		if err := old.Close(); err != nil {
			s.log.Warn("the old file of the index was not closed", "err", err)
		}
	})
	return errors.Join(err, s.newView())
}

// writeAnew puts a new file with the same content in place of the file.
func (s *Store) writeAnew() (db *database, err error) {
	file, err := filepath.EvalSymlinks(s.file)
	if err != nil {
		return nil, err
	}
	if err := removeFresh(s.file); err != nil {
		return nil, err
	}
	fresh := file + freshSuffix
	defer func() {
		if err != nil {
			if db != nil {
				err = errors.Join(err, db.Close())
			}
			os.Remove(fresh)
		}
	}()
	if db, err = openDatabase(fresh, false); err != nil {
		return db, err
	}
	db.NoSync = true
	if err = s.db.View(func(tx *bbolt.Tx) error { return copyAll(db.DB, tx, s.db.forget) }); err != nil {
		return db, err
	}
	db.NoSync = false
	fi, err := s.db.pages.Stat()
	if err == nil {
		err = errors.Join(db.pages.Chmod(fi.Mode().Perm()), db.Sync())
	}
	if err != nil {
		return db, err
	}
	if err = durable.Rename(fresh, file); err != nil {
		if _, err2 := os.Lstat(fresh); !errors.Is(err2, fs.ErrNotExist) {
			return db, err
		}
		// It was renamed, and a crash may undo that: then the index is an older one.
		s.log.Error("the folder of the index can't be synced", "file", file, "err", err)
	}
	return db, nil
}

// freshSuffix is of the name of a file that is being written.
const freshSuffix = ".new"

// removeFresh removes what a crash left.
func removeFresh(file string) error {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	err := os.Remove(file + freshSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// copyAll copies a state of an index and checks that it is what was written.
func copyAll(db *bbolt.DB, from *bbolt.Tx, forget func()) (err error) {
	defer catch(&err)()
	want, err := getSums(from)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{bucketModules, bucketHosts, bucketTools, bucketJournal, bucketEvents, bucketWatched, bucketMeta} {
		b := from.Bucket(name)
		if b == nil {
			return damaged("a part is missing")
		}
		got, err := copyBucket(db, name, b.Cursor(), forget)
		if err != nil {
			return err
		}
		if sum := want.of(name); sum != nil && *sum != got {
			return damaged("a part has %d values, not the %d that were written", got.Count, sum.Count)
		}
	}
	return nil
}

// copyBucket copies what a cursor goes over, in several transactions.
func copyBucket(db *bbolt.DB, name []byte, c *bbolt.Cursor, forget func()) (got sum, err error) {
	k, v := c.First()
	for first := true; first || k != nil; first = false {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			b.FillPercent = fillPercent
			for size := 0; k != nil && size < compactBatch; k, v = c.Next() {
				if err := got.put(b, k, v); err != nil {
					return err
				}
				size += len(k) + len(v)
			}
			return nil
		})
		if err != nil {
			return got, err
		}
		forget()
	}
	return got, nil
}
