package dnsserver

import (
	"errors"
	"fmt"
	"sync/atomic"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
)

// A Lister is an index that can tell all its modules, as a chain needs them.
type Lister interface {
	index.Reader

	// Each calls f for every module, and says whether it has a release.
	Each(f func(path string, released bool) error) error

	// Changes returns the paths of modules that changed since a mark, an
	// earlier result; 0 starts. When they are not known, ok is false: then all
	// are to be read by Each, after this call. There is one reader.
	Changes(since uint64) (paths []string, mark uint64, ok bool)
}

var _ Lister = (*index.Store)(nil)

var errNoLister = errors.New(`zone.denial: this index can't list its modules, which "nsec" needs`)

// A chainKeeper keeps a chain in step with an index and a zone. It is used by
// one at a time.
type chainKeeper struct {
	idx    Lister
	mark   uint64
	chain  *chain          // nil when it has to be made anew
	origin string          // of the zone, in presentation format
	pieces *atomic.Int64   // signed records that are kept with the chain, about
	own    map[string]bool // keys of the names beside the modules; true with a TXT record below v0
}

// buildBatch is how many names are put into a chain together.
const buildBatch = 1 << 15

// update returns the chain of the zone for the index as it is now.
func (k *chainKeeper) update(z *zone) (*chain, error) {
	paths, mark, ok := k.idx.Changes(k.mark)
	c := k.chain
	k.chain, k.mark = nil, mark // after an error it is made anew
	list, err := k.idx.Toolchains()
	if err != nil {
		return nil, fmt.Errorf("reading the Go releases: %w", err)
	}
	own, err := z.ownKeys(len(list) > 0)
	if err != nil {
		return nil, err
	}
	for key := range k.own {
		if _, still := own[key]; !still {
			ok = false // nothing is taken out of a chain
		}
	}
	var links, above []link
	if !ok || c == nil || k.origin != z.text {
		if c, above, err = k.build(z); err != nil {
			return nil, fmt.Errorf("reading the names of all modules: %w", err)
		}
		k.own = nil
		k.pieces.Store(0)
	}
	for _, path := range paths {
		m, ok, err := k.idx.Module(path)
		if err != nil {
			return nil, fmt.Errorf("reading the names of changed modules: %w", err)
		}
		if ok {
			links, above = z.appendLink(links, above, path, len(m.Majors) > 0)
		}
	}
	for key, txt := range own {
		if had, ok := k.own[key]; !ok || had != txt {
			links = append(links, link{key: []byte(key), txt: txt})
		}
	}
	add := func(links []link) {
		if len(links) > 0 {
			c = c.with(links)
			k.pieces.Add(-c.forgot)
		}
	}
	add(links)
	add(c.lacking(above))
	k.chain, k.origin, k.own = c, z.text, own
	return c, nil
}

func (k *chainKeeper) build(z *zone) (c *chain, above []link, err error) {
	c = newChain()
	links := make([]link, 0, buildBatch)
	err = k.idx.Each(func(path string, released bool) error {
		if links, above = z.appendLink(links, above, path, released); len(links) == buildBatch {
			c = c.with(links)
			links = links[:0]
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return c.with(links), above, nil
}

// appendLink appends the link of a module or, when its name is too long, to above
// that of the nearest name above it, which exists though nothing else may be there.
func (z *zone) appendLink(links, above []link, path string, released bool) (_, _ []link) {
	text, err := name.Module(path, z.text)
	long := err != nil
	if long {
		var ok bool
		if text, ok = name.Above(path, z.text); !ok {
			return links, above
		}
	}
	wire, err := packName(text)
	switch {
	case err != nil:
	case long:
		above = append(above, link{key: z.key(nil, wire)})
	default:
		links = append(links, link{key: z.key(nil, wire), txt: released})
	}
	return links, above
}

// lacking returns the links of names that don't exist in the chain.
func (c *chain) lacking(links []link) (lack []link) {
	for _, l := range links {
		if p := c.find(l.key); !p.exact && !p.below {
			lack = append(lack, l)
		}
	}
	return lack
}

// key appends the key of a name of the zone.
func (z *zone) key(dst, name []byte) []byte { return appendKey(dst, name, len(name)-len(z.origin)) }

// ownKeys are the keys of the names that the zone has beside the modules. Which
// types they have is in the zone, but for those below v0.
func (z *zone) ownKeys(toolchains bool) (map[string]bool, error) {
	keys := map[string]bool{}
	for owner, n := range z.static {
		if len(n.sets) > 0 {
			keys[string(z.key(nil, []byte(owner)))] = false
		}
	}
	for _, own := range []struct {
		name string
		txt  bool
	}{{name.Status(z.text), true}, {name.Toolchain(z.text), toolchains}} {
		wire, err := packName(own.name)
		if err != nil {
			return nil, err
		}
		keys[string(z.key(nil, wire))] = own.txt
	}
	return keys, nil
}
