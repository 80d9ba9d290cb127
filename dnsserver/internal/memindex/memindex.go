// Package memindex is an index of modules in memory, for tests and
// measurements. It trusts whoever fills it.
package memindex

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/tlog/index"
)

// An Index implements [index.Reader]. Modules are a sorted list whose texts lie
// in one string, so that millions of them are nothing for the garbage collector
// to look at.
type Index struct {
	mu         sync.RWMutex
	text       string
	mods       []entry // by path
	filter     filter
	hosts      []string
	rest       map[string]index.Module // those with more than one release
	toolchains []index.Toolchain
	head       index.Head
	changed    chan struct{}
	touched    []string // since the mark, when there is one
	mark       uint64
}

// An entry is a module with one release, or one that is in rest.
type entry struct {
	path, version span
	time          int64
	more          bool
}

type span struct{ at, n uint32 }

func (x *Index) str(s span) string { return x.text[s.at : s.at+s.n] }

// New returns an index without modules, with a head of size 0.
func New() *Index {
	return &Index{rest: map[string]index.Module{}, changed: make(chan struct{})}
}

// Set adds modules or replaces what is known of them, and sets the head.
func (x *Index) Set(head index.Head, mods ...index.Module) {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := map[string]index.Module{}
	for _, e := range x.mods {
		m := x.module(e)
		all[m.Path] = m
	}
	for _, m := range mods {
		all[m.Path] = m
		if x.mark > 0 {
			x.touched = append(x.touched, m.Path)
		}
	}
	paths := make([]string, 0, len(all))
	for path := range all {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var b strings.Builder
	add := func(s string) span {
		at := b.Len()
		b.WriteString(s)
		return span{uint32(at), uint32(len(s))}
	}
	x.mods, x.hosts, x.rest = make([]entry, 0, len(all)), nil, map[string]index.Module{}
	for _, path := range paths {
		m := all[path]
		e := entry{path: add(path)}
		if len(m.Majors) == 1 && m.Minors == nil && m.Pre == nil && m.Pseudo == nil && m.Majors[0].Record == 0 {
			e.version, e.time = add(m.Majors[0].Version), m.Majors[0].Time
		} else {
			e.more = true
			x.rest[path] = m
		}
		x.mods = append(x.mods, e)
		host, _, _ := strings.Cut(path, "/")
		for ok := true; ok; _, host, ok = strings.Cut(host, ".") {
			x.hosts = append(x.hosts, strings.Clone(host))
		}
	}
	x.text = b.String()
	x.filter = newFilter(2 * len(paths))
	for _, path := range paths {
		x.filter.add(path)
		for i := range len(path) {
			if path[i] == '/' {
				x.filter.add(path[:i])
			}
		}
	}
	slices.Sort(x.hosts)
	x.hosts = slices.Clone(slices.Compact(x.hosts))
	x.head = head
	close(x.changed)
	x.changed = make(chan struct{})
}

func (x *Index) module(e entry) index.Module {
	path := x.str(e.path)
	if e.more {
		return x.rest[path]
	}
	return Release(path, x.str(e.version), e.time)
}

// find returns the position of the first module whose path is not less.
func (x *Index) find(path string) int {
	i, _ := slices.BinarySearchFunc(x.mods, path, func(e entry, path string) int { return strings.Compare(x.str(e.path), path) })
	return i
}

// SetToolchains sets the Go releases.
func (x *Index) SetToolchains(list ...index.Toolchain) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.toolchains = list
	close(x.changed)
	x.changed = make(chan struct{})
}

// A filter knows most of what is not in a set (Bloom's, in words).
type filter struct {
	seed  maphash.Seed
	words []uint64
}

// newFilter makes a filter for n members, with 12 bits for each.
func newFilter(n int) filter { return filter{maphash.MakeSeed(), make([]uint64, n*12/64+1)} }

func (f *filter) place(s string) (word *uint64, bits uint64) {
	h := maphash.String(f.seed, s)
	return &f.words[h>>18%uint64(len(f.words))], 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63)
}

func (f *filter) add(s string) {
	word, bits := f.place(s)
	*word |= bits
}

// has is false only for what was not added.
func (f *filter) has(s string) bool {
	if len(f.words) == 0 {
		return false
	}
	word, bits := f.place(s)
	return *word&bits == bits
}

// Release is a module with one release.
func Release(path, version string, at int64) index.Module {
	return index.Module{Path: path, Majors: []index.Version{{Version: version, Time: at}}}
}

// Head is a head of that size, accepted now.
func Head(size int64) index.Head {
	return index.Head{Size: size, Hash: [32]byte{1}, Accepted: time.Now()}
}

func (x *Index) Module(path string) (index.Module, bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if !x.filter.has(path) {
		return index.Module{}, false, nil
	}
	i := x.find(path)
	if i == len(x.mods) || x.str(x.mods[i].path) != path {
		return index.Module{}, false, nil
	}
	return x.module(x.mods[i]), true, nil
}

func (x *Index) Later(path string) ([]string, error) { return nil, nil }

func (x *Index) IsPrefix(path string) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if !x.filter.has(path) {
		return false, nil
	}
	i := x.find(path + "/")
	return i < len(x.mods) && strings.HasPrefix(x.str(x.mods[i].path), path+"/"), nil
}

func (x *Index) HostSuffix(labels string) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := slices.BinarySearch(x.hosts, labels)
	return ok, nil
}

func (x *Index) Toolchains() ([]index.Toolchain, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.toolchains), nil
}

func (x *Index) Head() (index.Head, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.head, nil
}

func (x *Index) Changed() <-chan struct{} {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.changed
}

// Each calls f for every module, and says whether it has a release.
func (x *Index) Each(f func(path string, released bool) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, e := range x.mods {
		path := x.str(e.path)
		if err := f(path, !e.more || len(x.rest[path].Majors) > 0); err != nil {
			return err
		}
	}
	return nil
}

// Changes returns the paths of modules that Set changed since a mark, an
// earlier result; 0 starts, when all are to be read.
func (x *Index) Changes(since uint64) (paths []string, mark uint64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	paths, ok = x.touched, since == x.mark && since > 0
	x.mark++
	x.touched = nil
	return paths, x.mark, ok
}
