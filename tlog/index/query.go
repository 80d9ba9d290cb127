package index

import (
	"bytes"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
)

// A query is what one question needs; it is reused.
type query struct {
	view    *view
	faults  bool // what SetPanicOnFault was
	modules *bbolt.Cursor
	hosts   *bbolt.Cursor
	block   blockReader
	key     []byte
	text    []byte
	ends    []int
	list    []entry
	arena   []byte
}

// begin returns a query of the current view; end must follow.
func (s *Store) begin() (*query, error) {
	s.mu.RLock()
	switch {
	case s.view == nil:
		s.mu.RUnlock()
		return nil, errClosed
	case s.damaged.Load():
		s.mu.RUnlock()
		return nil, ErrCorrupt
	}
	q, ok := s.queries.Get().(*query)
	if !ok {
		q = &query{}
	}
	if q.view != s.view {
		q.view, q.modules, q.hosts = s.view, s.view.modules.Cursor(), s.view.hosts.Cursor()
	}
	q.faults = debug.SetPanicOnFault(true)
	return q, nil
}

// end ends a query. It is deferred: bbolt panics at a page that is none.
func (s *Store) end(q *query, err *error) {
	debug.SetPanicOnFault(q.faults)
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w (%v)", ErrCorrupt, r)
	} else {
		s.queries.Put(q)
	}
	s.mu.RUnlock()
}

// seek moves to the first module whose path is not less than the key.
func (q *query) seek() (bool, error) { return q.seekIn(q.modules) }

func (q *query) seekIn(c *bbolt.Cursor) (bool, error) {
	if len(q.key) == 0 || bytes.Compare(q.key, topKey) >= 0 {
		return false, nil
	}
	k, b := c.Seek(q.key)
	if err := q.block.openFor(q.key, k, b); err != nil {
		return false, err
	}
	ok, err := q.block.seek(q.key)
	if err == nil && !ok && !bytes.Equal(k, topKey) { // the key is the last path, but for the last block
		err = damaged("block %q ends too early", k)
	}
	return ok, err
}

// Module implements [Reader].
func (s *Store) Module(path string) (m Module, ok bool, err error) {
	q, err := s.begin()
	if err != nil {
		return Module{}, false, err
	}
	defer s.end(q, &err)
	q.key = append(q.key[:0], path...)
	found, err := q.seek()
	if err != nil || !found || !bytes.Equal(q.block.path, q.key) {
		return Module{}, false, err
	}
	if q.list, q.arena, err = q.block.list(q.list[:0], q.arena[:0]); err != nil {
		return Module{}, false, err
	}
	return q.module(path), true, nil
}

// module makes the answer of a list of entries. It allocates the answer alone:
// one string for all texts and one array for all versions.
func (q *query) module(path string) Module {
	q.text, q.ends = q.text[:0], q.ends[:0]
	for i := range q.list {
		q.text = appendVersion(q.text, q.list[i].ver, q.list[i].pre.of(q.arena))
		q.ends = append(q.ends, len(q.text))
	}
	text := string(q.text)
	roles := make([]Version, 0, 2*len(q.list))
	add := func(i int) {
		start := 0
		if i > 0 {
			start = q.ends[i-1]
		}
		roles = append(roles, Version{text[start:q.ends[i]], q.list[i].time, q.list[i].record})
	}
	m := Module{Path: path}
	majors := 0
	for i := range q.list {
		if e := &q.list[i]; e.kind == release && (majors == 0 || e.major != q.list[lastRelease(q.list, i)].major) {
			add(i)
			majors++
		}
	}
	m.Majors = roles[:majors:majors]
	lines := 0
	for i := range q.list {
		e := &q.list[i]
		if e.kind != release || lines == maxLines {
			continue
		}
		if j := lastRelease(q.list, i); j < 0 || q.list[j].major != e.major || q.list[j].minor != e.minor {
			add(i)
			lines++
		}
	}
	m.Minors = roles[majors : majors+lines : majors+lines]
	for i := range q.list {
		switch q.list[i].kind {
		case preRelease:
			add(i)
			m.Pre = &roles[len(roles)-1]
		case pseudo:
			add(i)
			m.Pseudo = &roles[len(roles)-1]
		}
	}
	return m
}

// lastRelease returns the index of the release before i, -1 if there is none.
func lastRelease(l []entry, i int) int {
	for i--; i >= 0 && l[i].kind != release; i-- {
	}
	return i
}

// IsPrefix implements [Reader].
func (s *Store) IsPrefix(path string) (is bool, err error) {
	q, err := s.begin()
	if err != nil {
		return false, err
	}
	defer s.end(q, &err)
	q.key = append(append(q.key[:0], path...), '/')
	found, err := q.seek()
	return path != "" && found && bytes.HasPrefix(q.block.path, q.key), err
}

// HostSuffix implements [Reader].
func (s *Store) HostSuffix(labels string) (is bool, err error) {
	q, err := s.begin()
	if err != nil {
		return false, err
	}
	defer s.end(q, &err)
	q.key = appendHostKey(q.key[:0], labels)
	found, err := q.seekIn(q.hosts)
	return found && bytes.HasPrefix(q.block.path, q.key), err
}

// appendHostKey writes the labels of a host last first, each followed by a
// dot, so that hosts of one domain lie together.
func appendHostKey(b []byte, host string) []byte {
	for host != "" {
		i := strings.LastIndexByte(host, '.')
		b = append(append(b, host[i+1:]...), '.')
		host = host[:max(i, 0)]
	}
	return b
}

// maxLater bounds the seeks of one Later.
const maxLater = 256

// Later implements [Reader].
func (s *Store) Later(path string) (paths []string, err error) {
	base, sep, from := splitMajor(path)
	q, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer s.end(q, &err)
	prefix := []byte(base + sep)
	found := map[int]string{}
	q.key = append(q.key[:0], prefix...)
	for range maxLater {
		ok, err := q.seek()
		if err != nil {
			return nil, err
		}
		if !ok || !bytes.HasPrefix(q.block.path, prefix) {
			break
		}
		element, below, _ := bytes.Cut(q.block.path[len(prefix):], []byte("/"))
		if len(element) > 0 && element[0] > '9' {
			break // not a number, and neither is what follows
		}
		if n, ok := majorNumber(string(element)); ok && len(below) == 0 && n > from && n >= 2 {
			found[n] = string(q.block.path)
		}
		// Go on behind this element and everything below it ('0' follows '/').
		q.key = append(append(append(q.key[:0], prefix...), element...), '0')
	}
	for _, n := range slices.Sorted(maps.Keys(found)) {
		paths = append(paths, found[n])
	}
	return paths, nil
}

// splitMajor takes the major version off a path: "x/v3" is "x", "/v", 3;
// "gopkg.in/x.v2" is "gopkg.in/x", ".v", 2; "x" is "x", "/v", 1.
func splitMajor(path string) (base, sep string, major int) {
	sep, major = "/v", 1
	if strings.HasPrefix(path, "gopkg.in/") {
		sep = ".v"
		major = -1
	}
	if i := strings.LastIndex(path, sep); i > 0 {
		if n, ok := majorNumber(path[i+2:]); ok {
			return path[:i], sep, n
		}
	}
	return path, sep, major
}

// majorNumber reads the number of a major version as paths write it: no sign, and
// no zero in front of others ("x/v+5" and "x/v05" are modules of their own).
func majorNumber(s string) (int, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}
