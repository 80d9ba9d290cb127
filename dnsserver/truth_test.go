package dnsserver

import (
	"bytes"
	"slices"
	"testing"

	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/dnsserver/name"
)

// The truth is what exists in a zone, found the slow way: all names that hold
// data or are a module's, in canonical order.
type truth struct {
	names [][]byte
	all   map[string]bool // with those that only have others below them
}

func newTruth(t testing.TB, h *Handler) *truth {
	t.Helper()
	z := h.view.Load().zone
	_, _, rrs, err := z.cfg.static()
	if err != nil {
		t.Fatal(err)
	}
	tr := &truth{names: [][]byte{z.origin}}
	add := func(name string) {
		wire, err := packName(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasSuffix(wire, z.origin) {
			tr.names = append(tr.names, wire)
		}
	}
	for _, rr := range rrs {
		add(rr.Header().Name)
	}
	add(name.Status(z.text))
	add(name.Toolchain(z.text))
	var above []string
	err = h.idx.(*memindex.Index).Each(func(path string, _ bool) error {
		if text, err := name.Module(path, z.text); err == nil {
			add(text)
		} else if text, ok := name.Above(path, z.text); ok {
			above = append(above, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Above a name that is too long is one that exists, but for which nothing may be there.
	there := truth{names: tr.names}
	for _, text := range above {
		if wire, err := packName(text); err != nil || !there.exists(wire) {
			add(text)
		}
	}
	slices.SortFunc(tr.names, compareNames)
	tr.names = slices.CompactFunc(tr.names, bytes.Equal)
	return tr
}

// compareNames compares names in wire format, in lower case, by their labels
// from the last (RFC 4034, section 6.1).
func compareNames(a, b []byte) int {
	return slices.CompareFunc(labels(a), labels(b), bytes.Compare)
}

// labels returns the labels of a name, last first.
func labels(name []byte) [][]byte {
	var l [][]byte
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		l = append(l, name[i+1:i+1+int(name[i])])
	}
	slices.Reverse(l)
	return l
}

// exists reports whether a name is there or something is below it.
func (tr *truth) exists(name []byte) bool {
	if tr.all == nil {
		tr.all = map[string]bool{}
		for _, n := range tr.names {
			for ; n != nil; n = parentOf(n) {
				tr.all[string(n)] = true
			}
		}
	}
	return tr.all[string(name)]
}

// next returns the name that follows one in the chain, nil if that is not in it.
func (tr *truth) next(name []byte) []byte {
	i, ok := slices.BinarySearchFunc(tr.names, name, compareNames)
	if !ok {
		return nil
	}
	return tr.names[(i+1)%len(tr.names)]
}
