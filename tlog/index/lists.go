package index

import "unsafe"

// Lists are the lists of entries in a delta, each in one piece.
type lists struct {
	entries []entry
	free    [maxRoom + 1]uint32 // for each room: first of the unused pieces plus 1; the next one stands in its record
}

// A list has room for one, two, or a multiple of four entries.
func room(n int) int {
	if n <= 2 {
		return n
	}
	return (n + 3) &^ 3
}

// maxRoom is that of the longest list that prune leaves, or more.
const maxRoom = maxMajors + maxLines + 4

// replace puts a list in place of the one of n entries at a place, and returns
// where it is.
func (s *lists) replace(at uint32, n int, l []entry) uint32 {
	if room(n) != room(len(l)) {
		if n > 0 {
			s.entries[at].record = int64(s.free[room(n)])
			s.free[room(n)] = at + 1
		}
		at = s.take(room(len(l)))
	}
	copy(s.entries[at:], l)
	return at
}

// take returns an unused piece.
func (s *lists) take(room int) uint32 {
	if f := s.free[room]; f > 0 {
		s.free[room] = uint32(s.entries[f-1].record)
		return f - 1
	}
	at := len(s.entries)
	s.entries = grown(s.entries, room)[:at+room]
	return uint32(at)
}

func (s *lists) reset() {
	s.entries = s.entries[:0]
	clear(s.free[:])
}

// grown returns a slice with room for n more, in huge pages when it is large.
func grown[T any](s []T, n int) []T {
	if len(s)+n <= cap(s) {
		return s
	}
	g := make([]T, len(s), max(len(s)+n, cap(s)+cap(s)/4, 64))
	useHugePages(g)
	copy(g, s)
	return g
}

// useHugePages asks for huge pages behind a large slice that was just made. In
// places all over a hundred megabytes, the processor looks up small ones longer
// than it reads them.
func useHugePages[T any](s []T) {
	if n := uintptr(cap(s)) * unsafe.Sizeof(*new(T)); n >= 2*hugePage {
		adviseHuge(uintptr(unsafe.Pointer(unsafe.SliceData(s))), n)
	}
}

const hugePage = 2 << 20
