package index

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"example.org/upkeep/tlog"
)

// A Found is a version found by asking for it, with its proven record.
type Found struct {
	Version string
	Time    int64
	Record  tlog.Record
}

// errKind is returned for a use that the kind of the index does not allow.
var errKind = errors.New("only an index in mode watch takes single versions")

// Watched reports whether a module was polled before, in this or an earlier
// run of the program.
func (s *Store) Watched(path string) (bool, error) {
	var ok bool
	err := s.read(func(tx *bbolt.Tx) error {
		ok = tx.Bucket(bucketWatched).Get([]byte(path)) != nil
		return nil
	})
	return ok, err
}

// Wants reports whether a version of a module would be kept by the index and
// is not in it yet. Versions that are no canonical module version are not wanted.
func (s *Store) Wants(path, version string) (bool, error) {
	v, pre, _, ok := parseVersion([]byte(version))
	if !ok || !validPath([]byte(path)) {
		return false, nil
	}
	if pre != nil && path == string(toolchainPath) {
		return s.wantsToolchain(toolchainVersion(pre)), nil
	}
	return s.wants(path, v, pre)
}

func (s *Store) wants(path string, v ver, pre []byte) (wanted bool, err error) {
	q, err := s.begin()
	if err != nil {
		return false, err
	}
	defer s.end(q, &err)
	q.key = append(q.key[:0], path...)
	q.list, q.arena = q.list[:0], q.arena[:0]
	found, err := q.seek()
	if err == nil && found && bytes.Equal(q.block.path, q.key) {
		q.list, q.arena, err = q.block.list(q.list, q.arena)
	}
	if err != nil {
		return false, err
	}
	e := entry{ver: v, record: -1}
	if v.kind != release {
		e.pre = span{uint32(len(q.arena)), uint16(len(pre))}
		q.arena = append(q.arena, pre...)
	}
	out, other := insert(q.list, e, q.arena)
	q.list = out
	if other == nil {
		for i := range out {
			wanted = wanted || out[i].record == -1
		}
	}
	return wanted, nil
}

func (s *Store) wantsToolchain(v string) bool {
	if v == "" {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return false
	}
	all := append([]Toolchain{{Version: v, Record: -1}}, s.view.tools...)
	for _, t := range s.view.tools {
		if t.Version == v {
			return false
		}
	}
	for _, t := range selectToolchains(all) {
		if t.Record == -1 {
			return true
		}
	}
	return false
}

// Add stores versions found of a module, together with the tree head that
// covers them, and notes that the module was polled if these are all that it
// has of use. Before the first SetHead the tree head is not shown.
func (s *Store) Add(head tlog.TreeHead, path string, found []Found, all bool) error {
	if s.opts.Kind != Watching {
		return fmt.Errorf("updating the index: %w", errKind)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, f := range found {
		var r rec
		if !parseRecord(f.Record.Data, &r) || string(r.path) != path || string(appendVersion(nil, r.ver, r.pre)) != f.Version {
			return fmt.Errorf("updating the index: record %d of the log is not about %s %s", f.Record.ID, path, f.Version)
		}
		m, ok := s.delta.find(r.hash, r.path)
		if !ok {
			return fmt.Errorf("updating the index: record %d of the log is not of a module", f.Record.ID)
		}
		if r.toolchain {
			s.addToolchain(r.pre, f.Record.ID, f.Time)
		}
		s.delta.add(m, &r, f.Record.ID, f.Time)
	}
	if all {
		s.polled = append(s.polled, path)
	}
	return s.addHead(head, s.pos.Accepted.IsZero())
}

// SetHead notes the log's tree head, under which nothing new was found when
// modules were polled last, at a time.
func (s *Store) SetHead(head tlog.TreeHead, at time.Time) error {
	if s.opts.Kind != Watching {
		return fmt.Errorf("updating the index: %w", errKind)
	}
	s.writing.Lock()
	if at = at.UTC(); at.Before(head.Accepted) {
		head.Accepted = at
	}
	err := s.addHead(head, false)
	s.writing.Unlock()
	if err != nil {
		return err
	}
	// A version that was found since then is as new as its own proof.
	if known, err := s.Head(); err != nil || at.Before(known.Accepted) && !known.Accepted.After(time.Now()) {
		return err
	}
	return s.Agree(at)
}

func (s *Store) addHead(head tlog.TreeHead, hide bool) error {
	if head.Size <= s.pos.Size && len(s.delta.mods) == 0 && len(s.polled) == 0 {
		return nil
	}
	if head.Size >= s.pos.Size && !hide {
		s.pos.Size, s.pos.Hash = head.Size, head.Hash[:]
		s.pos.Note = head.Note
		if head.Accepted.After(s.pos.Accepted) {
			s.pos.Accepted = head.Accepted
		}
	}
	if err := s.merge(); err != nil {
		return fmt.Errorf("updating the index: %w", err)
	}
	return nil
}

func storePolled(b *bbolt.Bucket, sum *sum, polled []string) error {
	for _, path := range polled {
		if b.Get([]byte(path)) != nil {
			continue
		}
		if err := sum.put(b, []byte(path), []byte{}); err != nil {
			return err
		}
	}
	return nil
}
