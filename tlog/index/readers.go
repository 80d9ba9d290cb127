package index

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// Other processes may read while one writes. bbolt writes only into pages that
// are free, but it knows the readers of its own process alone, and would use
// again what another one still reads. So whoever only reads holds a shared lock
// on FILE.readers, taken before it looks for the newest state. Before each
// change the writer tries to lock that file; while it can't, it keeps a read
// transaction of its own on every state, so that nothing is used again, and the
// file grows. Neither ever waits for the other, except that a reader waits for
// the end of a merge that takes several transactions.
type readers struct {
	file *os.File // nil where files can't be shared
	pins []*bbolt.Tx
}

// heed is called by the writer before each change.
func (r *readers) heed(db *bbolt.DB) error {
	there, err := r.there()
	if err != nil {
		return fmt.Errorf("asking whether other processes read the index: %w", err)
	}
	if !there {
		return r.unpin()
	}
	tx, err := db.Begin(false)
	if err == nil {
		r.pins = append(r.pins, tx)
	}
	return err
}

func (r *readers) unpin() error {
	var errs []error
	for _, tx := range r.pins {
		errs = append(errs, tx.Rollback())
	}
	r.pins = nil
	return errors.Join(errs...)
}

func (r *readers) close() error {
	if r == nil {
		return nil
	}
	err := r.unpin()
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	return err
}
