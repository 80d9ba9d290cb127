package index

// An entry is a version with what the index keeps of its record.
type entry struct {
	ver
	record int64
	time   int64
	tag    uint64 // part of the record's hashes, to notice another record for the same version
	pre    span   // pre-release text, in the arena
} // 64 bytes, a line of the processor's cache

// A span is a piece of an arena.
type span struct {
	at  uint32
	len uint16
}

func (s span) of(arena []byte) []byte { return arena[s.at : s.at+uint32(s.len)] }

// Limits on what is kept of a module, so that none takes more space than this
// with any number of versions. Of more majors the newest are kept.
const (
	maxMajors = 128
	maxLines  = 4
)

func compareEntries(a, b *entry, arena []byte) int {
	return compareVer(a.ver, b.ver, a.pre.of(arena), b.pre.of(arena))
}

// insert adds an entry to a list, newest first, and drops what need not be
// kept. The result does not depend on the order of insertions: what prune drops
// is never needed again whatever is added later. When the version is there
// already, the lower record number stays, and other is the entry it met.
func insert(l []entry, e entry, arena []byte) (out []entry, other *entry) {
	i := 0
	for ; i < len(l); i++ {
		switch c := compareEntries(&l[i], &e, arena); {
		case c == 0:
			was := l[i]
			if e.record < l[i].record {
				l[i] = e
				return l, &was
			}
			return l, &was
		case c < 0:
			l = append(l, entry{})
			copy(l[i+1:], l[i:])
			l[i] = e
			return prune(l), nil
		}
	}
	return prune(append(l, e)), nil
}

// prune drops, in place, what need not be kept of a list, newest first: it
// keeps the newest release of each of the newest majors and of each of the
// newest minor lines, the newest pre-release if no release is newer, and the
// newest pseudo-version if nothing else is there.
func prune(l []entry) []entry {
	tagged := false
	for i := range l {
		tagged = tagged || l[i].kind != pseudo
	}
	out := l[:0]
	majors, lines := 0, 0
	var major, minor uint64
	seenPre, seenPseudo := false, false
	for i := range l {
		e := &l[i]
		keep := false
		switch e.kind {
		case release:
			newMajor := majors == 0 || e.major != major
			newLine := newMajor || e.minor != minor
			major, minor = e.major, e.minor
			if newMajor {
				majors++
				keep = majors <= maxMajors
			}
			if newLine {
				lines++
				keep = keep || lines <= maxLines
			}
		case preRelease:
			keep = majors == 0 && !seenPre
			seenPre = true
		case pseudo:
			keep = !tagged && !seenPseudo
			seenPseudo = true
		}
		if keep {
			out = append(out, *e)
		}
	}
	return out
}

// redundant reports quickly that insert would drop the entry and that the list
// doesn't hold its version.
func redundant(l []entry, v ver, pre, arena []byte) bool {
	for i := range l {
		o := &l[i]
		switch v.kind {
		case release:
			if o.kind == release && o.major == v.major && o.minor == v.minor {
				return o.patch > v.patch
			}
		case preRelease:
			if o.kind != pseudo {
				return compareVer(o.ver, v, o.pre.of(arena), pre) > 0
			}
		case pseudo:
			if o.kind != pseudo {
				return true
			}
			return compareVer(o.ver, v, o.pre.of(arena), pre) > 0
		}
	}
	return false
}
