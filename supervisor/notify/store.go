package notify

import (
	"fmt"
	"os"
	"slices"
	"sync"
)

// Named is an open file and the name under which it is kept or passed.
type Named struct {
	Name string
	File *os.File
}

// maxStored bounds what a service can have kept.
const maxStored = 128

// A Store keeps descriptors that the service wants to find again after its
// restart. It outlives the runs of the service.
type Store struct {
	// Added and Removed are called for each change, so that somebody else can
	// keep the descriptors too; nil = nobody. Set before use.
	Added   func(Named)
	Removed func(name string)

	mu   sync.Mutex
	kept []stored
}

type stored struct {
	Named
	poll bool // is dropped when its other end is gone
}

// Add keeps a file; the store closes it.
func (s *Store) Add(name string, f *os.File) error { return s.add(name, f, true) }

func (s *Store) add(name string, f *os.File, poll bool) error {
	if name == "" {
		name = "stored" // as systemd calls it
	}
	if !goodName(name) {
		f.Close()
		return fmt.Errorf("%q is no name for a descriptor", clean(name))
	}
	s.mu.Lock()
	s.drop()
	for _, k := range s.kept {
		if sameSocket(k.File, f) {
			s.mu.Unlock()
			f.Close()
			return nil // kept already
		}
	}
	if len(s.kept) >= maxStored {
		s.mu.Unlock()
		f.Close()
		return fmt.Errorf("%d descriptors are kept, more are not", maxStored)
	}
	k := Named{name, f}
	s.kept = append(s.kept, stored{k, poll})
	s.mu.Unlock()
	if s.Added != nil {
		s.Added(k)
	}
	return nil
}

// Remove closes the files of a name.
func (s *Store) Remove(name string) {
	if name == "" {
		name = "stored"
	}
	s.mu.Lock()
	n := len(s.kept)
	s.kept = slices.DeleteFunc(s.kept, func(k stored) bool {
		if k.Name != name {
			return false
		}
		k.File.Close()
		return true
	})
	changed := len(s.kept) != n
	s.mu.Unlock()
	if changed && s.Removed != nil {
		s.Removed(name)
	}
}

// Files returns what is kept, oldest first; the files stay the store's.
func (s *Store) Files() []Named {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	var list []Named
	for _, k := range s.kept {
		list = append(list, k.Named)
	}
	return list
}

// drop closes what nobody has the other end of any more.
func (s *Store) drop() {
	s.kept = slices.DeleteFunc(s.kept, func(k stored) bool {
		if !k.poll || !hungUp(k.File) {
			return false
		}
		k.File.Close()
		return true
	})
}
