// Package memindex is an index of modules in memory, for tests and
// measurements. It trusts whoever fills it.
package memindex

import (
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/tlog/index"
)

// An Index implements [index.Reader].
type Index struct {
	mu         sync.RWMutex
	mods       map[string]index.Module
	prefixes   map[string]bool
	hosts      map[string]bool
	toolchains []index.Toolchain
	head       index.Head
	changed    chan struct{}
}

// New returns an index without modules, with a head of size 0.
func New() *Index {
	return &Index{mods: map[string]index.Module{}, prefixes: map[string]bool{}, hosts: map[string]bool{}, changed: make(chan struct{})}
}

// Set adds modules or replaces what is known of them, and sets the head.
func (x *Index) Set(head index.Head, mods ...index.Module) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range mods {
		x.mods[m.Path] = m
		for p := m.Path; ; {
			i := strings.LastIndexByte(p, '/')
			if i < 0 {
				break
			}
			p = p[:i]
			if x.prefixes[p] {
				break
			}
			x.prefixes[p] = true
		}
		host, _, _ := strings.Cut(m.Path, "/")
		for ok := true; ok; _, host, ok = strings.Cut(host, ".") {
			x.hosts[host] = true
		}
	}
	x.head = head
	close(x.changed)
	x.changed = make(chan struct{})
}

// SetToolchains sets the Go releases.
func (x *Index) SetToolchains(list ...index.Toolchain) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.toolchains = list
	close(x.changed)
	x.changed = make(chan struct{})
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
	m, ok := x.mods[path]
	return m, ok, nil
}

func (x *Index) Later(path string) ([]string, error) { return nil, nil }

func (x *Index) IsPrefix(path string) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.prefixes[path], nil
}

func (x *Index) HostSuffix(labels string) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.hosts[labels], nil
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
