package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// A kind is what a version is to somebody looking for updates.
type kind uint8

const (
	release kind = iota
	preRelease
	pseudo
)

// A ver is a parsed version. Its pre-release text lies elsewhere.
type ver struct {
	major, minor, patch uint64
	kind                kind
	incompatible        bool
}

// parseVersion reads a canonical module version. The pre-release text it
// returns is part of b; commit is the time in a pseudo-version.
func parseVersion(b []byte) (v ver, pre []byte, commit int64, ok bool) {
	if len(b) == 0 || b[0] != 'v' {
		return v, nil, 0, false
	}
	b = b[1:]
	if v.major, b, ok = number(b); !ok || len(b) == 0 || b[0] != '.' {
		return v, nil, 0, false
	}
	if v.minor, b, ok = number(b[1:]); !ok || len(b) == 0 || b[0] != '.' {
		return v, nil, 0, false
	}
	if v.patch, b, ok = number(b[1:]); !ok {
		return v, nil, 0, false
	}
	if len(b) == 0 {
		return v, nil, 0, true
	}
	b, v.incompatible = bytes.CutSuffix(b, incompatible)
	if len(b) == 0 {
		return v, nil, 0, true
	}
	pre = b[1:]
	if b[0] != '-' {
		return v, nil, 0, false
	}
	if t, ok := usualPseudo(pre, v.minor == 0 && v.patch == 0); ok {
		v.kind = pseudo
		return v, pre, t, true
	}
	if !validPre(pre) {
		return v, nil, 0, false
	}
	v.kind = preRelease
	if t, ok := pseudoTime(pre, v.minor == 0 && v.patch == 0); ok {
		v.kind, commit = pseudo, t
	}
	return v, pre, commit, true
}

// noTime is the commit time of a pseudo-version whose digits are no time. It is
// a pseudo-version to the go command all the same, and no claim to the clock.
const noTime = math.MinInt64

var incompatible = []byte("+incompatible")

// number reads digits; numbers of more than 18 digits name no version that
// anybody releases and are refused.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		n = n*10 + uint64(b[i]-'0')
	}
	if i == 0 || i > 18 || b[0] == '0' && i > 1 {
		return 0, b, false
	}
	return n, b[i:], true
}

func validPre(b []byte) bool {
	start, digits := 0, true
	for i := 0; i <= len(b); i++ {
		if i == len(b) || b[i] == '.' {
			if i == start || digits && b[start] == '0' && i-start > 1 {
				return false
			}
			start, digits = i+1, true
			continue
		}
		c := b[i]
		switch {
		case c-'0' <= 9:
		case (c|0x20)-'a' < 26, c == '-':
			digits = false
		default:
			return false
		}
	}
	return true
}

// usualPseudo is validPre and pseudoTime for nearly all pseudo-versions, eight
// letters at a time: the commit has twelve letters, and "0." or nothing is in
// front of the time.
func usualPseudo(pre []byte, zero bool) (int64, bool) {
	const length = 14 + 1 + 12
	if len(pre) == length+2 && pre[0] == '0' && pre[1] == '.' {
		pre = pre[2:]
	} else if len(pre) != length || !zero {
		return 0, false
	}
	u64 := binary.LittleEndian.Uint64
	date, clock, hash1, hash2 := u64(pre), u64(pre[6:]), u64(pre[15:]), u64(pre[19:])
	alnum := (letters(hash1) | between(hash1, '0', '9')) & (letters(hash2) | between(hash2, '0', '9'))
	all := alnum & between(date, '0', '9') & between(clock, '0', '9') &^ (date | clock | hash1 | hash2)
	if all&highBits != highBits || pre[14] != '-' {
		return 0, false
	}
	// In each second byte: a digit times ten and the next.
	date, clock = date-'0'*eachByte, clock-'0'*eachByte
	date, clock = date*10+date>>8, clock*10+clock>>8
	two := func(w uint64, k int) int { return int(w >> (16 * k) & 0xff) }
	return unixTime(two(date, 0)*100+two(date, 1), two(date, 2), two(date, 3), two(clock, 1), two(clock, 2), two(clock, 3))
}

// pseudoTime returns the commit time in the pre-release text of a
// pseudo-version: yyyymmddhhmmss-abcdefabcdef alone (for vX.0.0), or behind
// "0." or ".0.". What has this form and no time is a pseudo-version with noTime.
func pseudoTime(pre []byte, zero bool) (int64, bool) {
	i := bytes.LastIndexByte(pre, '-')
	if i < 14 || i == len(pre)-1 {
		return 0, false
	}
	for _, c := range pre[i+1:] {
		if c == '.' {
			return 0, false
		}
	}
	front := pre[:i-14]
	switch {
	case len(front) == 0:
		if !zero {
			return 0, false
		}
	case string(front) == "0.":
	case len(front) > 3 && bytes.HasSuffix(front, []byte(".0.")):
	default:
		return 0, false
	}
	var d [14]int
	for k, c := range pre[i-14 : i] {
		if c-'0' > 9 {
			return 0, false
		}
		d[k] = int(c - '0')
	}
	two := func(k int) int { return d[k]*10 + d[k+1] }
	year, month, day := two(0)*100+two(2), two(4), two(6)
	t, ok := unixTime(year, month, day, two(8), two(10), two(12))
	if !ok {
		t = noTime
	}
	return t, true
}

func unixTime(year, month, day, hour, minute, second int) (int64, bool) {
	if month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	return int64(daysSinceEpoch(year, month, day))*86400 + int64(hour*3600+minute*60+second), true
}

// daysSinceEpoch counts days of the Gregorian calendar from 1970-01-01; years
// start in March here, so that the leap day comes last.
func daysSinceEpoch(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 719469
}

// compareVer orders versions as semantic versioning does; "+incompatible"
// breaks a tie, so that the order is total.
func compareVer(a, b ver, preA, preB []byte) int {
	if c := cmp.Compare(a.major, b.major); c != 0 {
		return c
	}
	if c := cmp.Compare(a.minor, b.minor); c != 0 {
		return c
	}
	if c := cmp.Compare(a.patch, b.patch); c != 0 {
		return c
	}
	switch {
	case a.kind == release && b.kind != release:
		return 1
	case a.kind != release && b.kind == release:
		return -1
	case a.kind != release:
		if c := comparePre(preA, preB); c != 0 {
			return c
		}
	}
	if a.incompatible != b.incompatible {
		if a.incompatible {
			return 1
		}
		return -1
	}
	return 0
}

// comparePre compares pre-release texts identifier by identifier: numbers by
// value and before words, words by bytes, and the shorter row first.
func comparePre(a, b []byte) int {
	for {
		if len(a) == 0 || len(b) == 0 {
			return cmp.Compare(len(a), len(b))
		}
		var x, y []byte
		x, a, _ = bytes.Cut(a, []byte("."))
		y, b, _ = bytes.Cut(b, []byte("."))
		if bytes.Equal(x, y) {
			continue
		}
		nx, ny := isNumber(x), isNumber(y)
		switch {
		case nx && ny:
			if c := cmp.Compare(len(x), len(y)); c != 0 {
				return c
			}
		case nx:
			return -1
		case ny:
			return 1
		}
		return bytes.Compare(x, y)
	}
}

func isNumber(b []byte) bool {
	for _, c := range b {
		if c-'0' > 9 {
			return false
		}
	}
	return true
}

// appendVersion writes the version as text.
func appendVersion(b []byte, v ver, pre []byte) []byte {
	b = append(b, 'v')
	b = strconv.AppendUint(b, v.major, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, v.minor, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, v.patch, 10)
	if v.kind != release {
		b = append(append(b, '-'), pre...)
	}
	if v.incompatible {
		b = append(b, "+incompatible"...)
	}
	return b
}

func (k kind) String() string {
	switch k {
	case release:
		return "release"
	case preRelease:
		return "pre-release"
	case pseudo:
		return "pseudo-version"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}
