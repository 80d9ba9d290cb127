package index

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// Lists that grow and shrink keep what was put in them, and pieces that were
// given back are used again.
func TestLists(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	type held struct {
		at uint32
		l  []entry
	}
	var s lists
	have := make([]held, 200)
	record := int64(0)
	longest := 0
	var lives, most [maxRoom + 1]int // for each room: lists now, and the most there were at once
	for range 20_000 {
		k := rnd.IntN(len(have))
		l := slices.Clone(have[k].l)
		if n := rnd.IntN(8); n == 0 && k%50 == 0 {
			for len(l) < maxMajors+maxLines+1 {
				record++
				l = append(l, entry{record: record})
			}
		} else if n < 5 && len(l) < 12 {
			record++
			l = append(l, entry{record: record})
		} else if len(l) > 1 {
			l = l[:1+rnd.IntN(len(l)-1)]
		}
		if n := len(have[k].l); n > 0 {
			lives[room(n)]--
		}
		if n := len(l); n > 0 {
			lives[room(n)]++
			most[room(n)] = max(most[room(n)], lives[room(n)])
		}
		have[k] = held{s.replace(have[k].at, len(have[k].l), l), l}
		for j, h := range have {
			if !slices.Equal(s.entries[h.at:][:len(h.l)], h.l) {
				t.Fatalf("after a change of list %d, list %d is another", k, j)
			}
		}
		longest = max(longest, len(l))
	}
	if longest <= maxMajors {
		t.Fatal("no list was long: the test tests nothing")
	}
	need := 0
	for room, n := range most {
		need += room * n
	}
	if len(s.entries) != need {
		t.Errorf("%d entries are in use, lists of these rooms needed %d at once: pieces are not used again", len(s.entries), need)
	}
	s.reset()
	if at := s.replace(0, 0, make([]entry, 3)); at != 0 {
		t.Errorf("the first list after a reset lies at %d", at)
	}
}

func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n != 64 && unsafe.Sizeof(uintptr(0)) == 8 {
		t.Errorf("an entry takes %d bytes; delta.size counts 64, a line of the processor's cache", n)
	}
	if n := unsafe.Sizeof(deltaModule{}); n != 24 {
		t.Errorf("a module takes %d bytes; delta.size counts 24", n)
	}
}
