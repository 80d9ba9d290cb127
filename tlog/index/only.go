package index

import "strings"

// An Only is what an index holds of some modules. The file of a watching index
// keeps what it once found, and nobody looks for news of a module that is no
// longer watched: its newest version then would pass for the newest there is.
type Only struct {
	*Store
	modules   map[string]bool
	prefixes  map[string]bool // what the paths begin with, on element boundaries
	suffixes  map[string]bool // what the hosts end in, on label boundaries
	toolchain bool
}

var _ Reader = (*Only)(nil)

// Only returns what the index holds of the modules with these paths, and with
// toolchain of the releases of Go, whose module may be one of the paths as well.
func (s *Store) Only(paths []string, toolchain bool) *Only {
	o := &Only{Store: s, modules: map[string]bool{}, prefixes: map[string]bool{}, suffixes: map[string]bool{}}
	if toolchain {
		paths = append(paths[:len(paths):len(paths)], string(toolchainPath))
	}
	for _, path := range paths {
		o.modules[path] = true
		o.toolchain = o.toolchain || path == string(toolchainPath)
		for i := range path {
			if path[i] == '/' {
				o.prefixes[path[:i]] = true
			}
		}
		host, _, _ := strings.Cut(path, "/")
		for more := true; more; _, host, more = strings.Cut(host, ".") {
			o.suffixes[host] = true
		}
	}
	return o
}

// Module implements [Reader].
func (o *Only) Module(path string) (Module, bool, error) {
	if !o.modules[path] {
		return Module{}, false, nil
	}
	return o.Store.Module(path)
}

// Later implements [Reader].
func (o *Only) Later(path string) ([]string, error) {
	all, err := o.Store.Later(path)
	var paths []string
	for _, p := range all {
		if o.modules[p] {
			paths = append(paths, p)
		}
	}
	return paths, err
}

// IsPrefix implements [Reader].
func (o *Only) IsPrefix(path string) (bool, error) {
	if !o.prefixes[path] {
		return false, nil
	}
	return o.Store.IsPrefix(path)
}

// HostSuffix implements [Reader].
func (o *Only) HostSuffix(labels string) (bool, error) {
	if !o.suffixes[labels] {
		return false, nil
	}
	return o.Store.HostSuffix(labels)
}

// Toolchains implements [Reader].
func (o *Only) Toolchains() ([]Toolchain, error) {
	if !o.toolchain {
		return nil, nil
	}
	return o.Store.Toolchains()
}

// Each is that of [Store].
func (o *Only) Each(f func(path string, released bool) error) error {
	return o.Store.Each(func(path string, released bool) error {
		if !o.modules[path] {
			return nil
		}
		return f(path, released)
	})
}
