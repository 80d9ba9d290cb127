package index

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// A view is a read transaction shared by all queries until the next merge. A
// read-only transaction of bbolt changes nothing in its buckets, and each
// query has a cursor of its own.
type view struct {
	db             *database
	tx             *bbolt.Tx
	modules, hosts *bbolt.Bucket
	head           Head
	skipped        int64
	tools          []Toolchain
	users          atomic.Int32 // the store, and long readings
	mark           uint64       // number behind the newest change that it shows
}

var (
	errClosed  = errors.New("index is closed")
	errMerging = errors.New("a merge was interrupted: let the program that follows the log run once")
)

// read runs a short reading of the newest committed state. The lock keeps the
// file open that it reads.
func (s *Store) read(f func(tx *bbolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.db.View(f)
}

// newView shows the newest committed state to queries.
func (s *Store) newView() error {
	db := s.db
	tx, err := db.Begin(false)
	if err != nil {
		return fmt.Errorf("reading the index: %w", err)
	}
	v, err := openView(tx)
	if err != nil {
		tx.Rollback()
		return err
	}
	v.db = db
	db.long.Add(1)
	v.mark = s.changes.end()
	s.mu.Lock()
	old := s.view
	s.view = v
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	old.release()
	s.metrics.view(v)
	return nil
}

func openView(tx *bbolt.Tx) (v *view, err error) {
	defer catch(&err)()
	v = &view{tx: tx, modules: tx.Bucket(bucketModules), hosts: tx.Bucket(bucketHosts)}
	v.users.Store(1)
	tools := tx.Bucket(bucketTools)
	if v.modules == nil || v.hosts == nil || tools == nil {
		return nil, fmt.Errorf("%w (parts of it are missing)", ErrCorrupt)
	}
	newest, err := getPosition(tx, keyPosition)
	if err != nil {
		return nil, err
	}
	if newest.Merging {
		return nil, errMerging
	}
	pos, err := getPosition(tx, keyView)
	if err != nil {
		return nil, err
	}
	sums, err := getSums(tx)
	if err != nil {
		return nil, err
	}
	if err := sums.Toolchains.check(tools); err != nil {
		return nil, err
	}
	v.head = pos.head(tx)
	v.skipped = pos.Skipped
	v.tools, err = readToolchains(tools)
	return v, err
}

// hold returns the view for a long reading; release must follow.
func (s *Store) hold() (*view, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return nil, errClosed
	}
	s.view.users.Add(1)
	return s.view, nil
}

// release ends a use of the view, nil for none.
func (v *view) release() {
	if v != nil && v.users.Add(-1) == 0 {
		v.tx.Rollback()
		v.db.long.Done()
	}
}

// head returns the state of the log at a position.
func (p *position) head(tx *bbolt.Tx) Head {
	h := Head{Size: p.edge.Size, Hash: p.edge.Root(), Accepted: p.Accepted}
	if string(tx.Bucket(bucketMeta).Get(keyKind)) == Watching {
		h.Size = p.Size
		copy(h.Hash[:], p.Hash)
	}
	return h
}

func (s *Store) closeView() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.release()
	s.view = nil
}

// Changed implements [Reader].
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// Head implements [Reader].
func (s *Store) Head() (Head, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return Head{}, errClosed
	}
	head := s.view.head
	if a := s.agreed.Load(); a != nil && (a.of == s.view || a.at.After(head.Accepted)) {
		head.Accepted = a.at
	}
	return head, nil
}

// Steps in which the time of Head moves while nothing changes, and in which it
// is written to disk.
const (
	agreeStep  = 15 * time.Second
	agreeWrite = time.Minute
)

// An agreement is a moment when the log had no more than a view shows.
type agreement struct {
	at time.Time
	of *view
}

// Agree notes that the log was asked and has nothing that the index lacks. A
// later time noted before is of a clock that was ahead, and is given up: with it
// the index would never be found too old.
func (s *Store) Agree(at time.Time) error {
	at = at.UTC()
	head, err := s.Head()
	if err != nil {
		return err
	}
	if at.Sub(head.Accepted).Abs() < agreeStep {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	s.agreed.Store(&agreement{at, s.view})
	s.mu.RUnlock()
	ahead := s.pos.Accepted.Sub(at)
	if ahead >= agreeStep {
		s.log.Warn("this machine's clock was ahead when the log was last heard of", "by", ahead.Round(time.Second), "then", s.pos.Accepted, "now", at)
		s.pos.Accepted = at // whenever it is stored
	} else if ahead > -agreeWrite {
		return nil
	}
	if len(s.delta.mods) > 0 || s.pos.Merging {
		return nil
	}
	s.pos.Accepted = at
	return s.update(func(tx *bbolt.Tx, _ *sums) error {
		return errors.Join(putPosition(tx, keyPosition, &s.pos), putPosition(tx, keyView, &s.pos))
	})
}

// Toolchains implements [Reader].
func (s *Store) Toolchains() ([]Toolchain, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return nil, errClosed
	}
	return append([]Toolchain(nil), s.view.tools...), nil
}
