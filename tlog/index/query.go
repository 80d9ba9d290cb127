package index

import (
	"bytes"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
)

// A query is what one question needs; it is reused.
type query struct {
	view    *view
	modules *bbolt.Cursor
	hosts   *bbolt.Cursor
	block   blockReader
	key     []byte
	text    []byte
	ends    []int
	list    []entry
	arena   []byte
}

// ask runs f with the current view.
func (s *Store) ask(f func(q *query) error) (err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return errClosed
	}
	if s.damaged.Load() {
		return ErrCorrupt
	}
	defer catch(&err)()
	q, ok := s.queries.Get().(*query)
	if !ok {
		q = &query{}
	}
	if q.view != s.view {
		q.view, q.modules, q.hosts = s.view, s.view.modules.Cursor(), s.view.hosts.Cursor()
	}
	err = f(q)
	s.queries.Put(q)
	return err
}

// seek moves to the first module whose path is not less than the key.
func (q *query) seek() (bool, error) {
	k, b := q.modules.Seek(q.key)
	if b == nil {
		return false, nil
	}
	if err := q.block.open(k, b); err != nil {
		return false, err
	}
	return q.block.seek(q.key)
}

// Module implements [Reader].
func (s *Store) Module(path string) (m Module, ok bool, err error) {
	err = s.ask(func(q *query) error {
		q.key = append(q.key[:0], path...)
		found, err := q.seek()
		if err != nil || !found || !bytes.Equal(q.block.path, q.key) {
			return err
		}
		if q.list, q.arena, err = q.block.list(q.list[:0], q.arena[:0]); err != nil {
			return err
		}
		m, ok = q.module(path), true
		return nil
	})
	return m, ok, err
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
	err = s.ask(func(q *query) error {
		q.key = append(append(q.key[:0], path...), '/')
		found, err := q.seek()
		is = found && bytes.HasPrefix(q.block.path, q.key)
		return err
	})
	return is && path != "", err
}

// HostSuffix implements [Reader].
func (s *Store) HostSuffix(labels string) (is bool, err error) {
	err = s.ask(func(q *query) error {
		q.key = appendHostKey(q.key[:0], labels)
		k, _ := q.hosts.Seek(q.key)
		is = bytes.HasPrefix(k, q.key)
		return nil
	})
	return is && labels != "", err
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
	type major struct {
		n    int
		path string
	}
	var found []major
	err = s.ask(func(q *query) error {
		prefix := base + sep
		q.key = append(q.key[:0], prefix...)
		for range maxLater {
			ok, err := q.seek()
			if err != nil || !ok || !bytes.HasPrefix(q.block.path, []byte(prefix)) {
				return err
			}
			rest := q.block.path[len(prefix):]
			end := 0
			for end < len(rest) && rest[end]-'0' <= 9 {
				end++
			}
			if end == len(rest) {
				if n, err := strconv.Atoi(string(rest)); err == nil && rest[0] != '0' && n > from && n >= 2 {
					found = append(found, major{n, string(q.block.path)})
				}
			}
			// Go on behind this element and everything below it ('0' follows '/').
			if i := bytes.IndexByte(rest, '/'); i >= 0 {
				end = i
			} else {
				end = len(rest)
			}
			q.key = append(append(append(q.key[:0], prefix...), rest[:end]...), '0')
			if end > 0 && rest[0] > '9' {
				return nil // not a number, and neither is what follows
			}
		}
		return nil
	})
	for i := 1; i < len(found); i++ {
		for j := i; j > 0 && found[j].n < found[j-1].n; j-- {
			found[j], found[j-1] = found[j-1], found[j]
		}
	}
	for _, m := range found {
		paths = append(paths, m.path)
	}
	return paths, err
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
		if n, err := strconv.Atoi(path[i+2:]); err == nil && n >= 0 {
			return path[:i], sep, n
		}
	}
	return path, sep, major
}
