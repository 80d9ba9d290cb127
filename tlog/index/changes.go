package index

import (
	"slices"
	"sync"
)

// Bounds on the paths that are kept for who follows the changes, and before
// there is somebody.
const (
	maxChanges = 1 << 17
	fewChanges = 1 << 10
)

// changes are the paths of modules that merges touched, for one reader that
// keeps something in step with the index.
type changes struct {
	mu    sync.Mutex
	read  bool   // there is a reader
	first uint64 // number of the first path kept
	paths []string
}

// note keeps the paths of a delta that was merged, before its view is shown.
func (c *changes) note(d *delta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := fewChanges
	if c.read {
		most = maxChanges
	}
	if len(c.paths)+len(d.mods) > most { // the reader starts anew
		c.first += uint64(len(c.paths) + len(d.mods))
		c.paths = nil
		return
	}
	for i := range d.mods {
		c.paths = append(c.paths, string(d.mods[i].path.of(d.arena)))
	}
}

// end is the number behind the newest path. A view keeps it as its mark.
func (c *changes) end() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first + uint64(len(c.paths))
}

// Changes returns the paths of modules that changed since a mark, an earlier
// result. When they are not known, as at the start, ok is false: then read all
// by Each, after this call. It is for one reader: what was returned is forgotten.
func (s *Store) Changes(since uint64) (paths []string, mark uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := &s.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.view == nil {
		return nil, 0, false
	}
	end := s.view.mark                                                // what queries can see
	if !c.read || s.opts.ReadOnly || since < c.first || since > end { // read-only, others merge
		c.read = true
		return nil, end, false
	}
	paths = append(paths, c.paths[since-c.first:end-c.first]...)
	c.first, c.paths = end, append([]string(nil), c.paths[end-c.first:]...)
	return paths, end, true
}

// Each calls f for every module, in the order of their paths, and says whether
// it has a release. Queries and merges go on meanwhile.
func (s *Store) Each(f func(path string, released bool) error) (err error) {
	v, err := s.hold()
	if err != nil {
		return err
	}
	defer v.release()
	defer catch(&err)()
	var list []entry
	var arena []byte
	return eachModule(v.modules, func(br *blockReader) error {
		if list, arena, err = br.list(list[:0], arena[:0]); err != nil {
			return err
		}
		return f(string(br.path), slices.ContainsFunc(list, func(e entry) bool { return e.kind == release }))
	})
}
