// Package logtest makes checksum databases of any size for tests and
// benchmarks, and serves them with the faults of real networks and the lies of
// hostile servers.
//
// A [Content] says what every record of a log is, from its number alone: it is
// deterministic, a longer log starts with the shorter one, and nothing is
// stored. Its shape is that of the public database: about 24 records for each
// module, most of them of few modules with many versions; upper-case letters,
// /vN, +incompatible, pseudo-versions, pre-releases, long paths, many hosts.
//
// It trusts its caller and has no files, but for those that [WriteTiles] makes.
package logtest

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"time"
)

// Content describes the records of a log.
type Content struct {
	Seed uint64

	// Spread is over how many records the versions of a module are spread, in
	// millionths of what is natural for a log of 72 million records; 0 means
	// 1000000. Small logs need a small Spread to have modules with many versions.
	Spread int64

	Malformed int64 // every so many records one is malformed; 0 for none
	Duplicate int64 // every so many records one repeats an earlier version with another hash; 0 for none
	Forgers   int   // owners that claim commit times in the future
	ForkAt    int64 // records from this one on differ from those of another Content; 0 for none
}

// A class is a set of modules with the same number of versions.
type class struct {
	versions int64
	share    int64 // of 1024 records
	active   int64 // modules that publish at the same time
}

// The shares give 0.042 modules a record.
var classes = []class{
	{1, 14, 1}, {2, 17, 16_000}, {4, 27, 33_000}, {8, 41, 50_000}, {16, 61, 37_000},
	{40, 92, 45_000}, {100, 133, 26_000}, {300, 184, 12_000}, {1000, 225, 4400}, {5000, 230, 3200},
}

// slots tells for i%1024 the class and the rank among the slots of the class.
var slots = func() (t [1024]struct {
	class int16
	rank  int16
}) {
	at := 0
	for c := range classes {
		for r := range classes[c].share {
			// 397 is coprime to 1024: neighbours are of different classes.
			t[at*397%1024].class, t[at*397%1024].rank = int16(c), int16(r)
			at++
		}
	}
	return t
}()

// mix is a bijection that scatters its input (the finisher of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// place returns the module of a record and which of its versions it is.
func (c *Content) place(i int64) (module uint64, ordinal, of int64) {
	s := slots[i%1024]
	cl := &classes[s.class]
	active := cl.active
	if c.Spread > 0 {
		active = max(1, active*c.Spread/1_000_000)
	}
	j := i/1024*cl.share + int64(s.rank)
	group, rest := j/(active*cl.versions), j%(active*cl.versions)
	return uint64(s.class)<<48 | uint64(group*active+rest%active), rest / active, cl.versions
}

var start = time.Date(2019, 3, 1, 0, 0, 0, 0, time.UTC).Unix()

// Time returns the Unix time at which a record was added: the truth that an
// index has to find out from the commit times. The log grows ever faster.
func (c *Content) Time(i int64) int64 {
	const span, records = 7.75 * 365 * 86400, 72e6
	return start + int64(span*math.Pow(float64(i)/records, 0.45))
}

// Append appends the text of record i.
func (c *Content) Append(b []byte, i int64) []byte {
	h := mix(uint64(i) ^ c.Seed<<40)
	if c.ForkAt > 0 && i >= c.ForkAt {
		h = mix(^h)
	}
	if c.Malformed > 0 && i%c.Malformed == c.Malformed-1 {
		return appendMalformed(b, h)
	}
	if c.Duplicate > 0 && i%c.Duplicate == c.Duplicate-1 && i > 700 {
		return c.appendLines(b, i-500-int64(h%200), h^1)
	}
	return c.appendLines(b, i, h)
}

// appendLines appends both lines of a record: the version of record i, and
// hashes made of h.
func (c *Content) appendLines(b []byte, i int64, h uint64) []byte {
	start := len(b)
	b = c.AppendVersion(b, i)
	end := len(b)
	b = appendHash(append(b, ' '), h)
	b = append(b, b[start:end]...)
	return appendHash(append(b, "/go.mod "...), h+1)
}

// AppendVersion appends the module path and the version of record i, with a
// space between.
func (c *Content) AppendVersion(b []byte, i int64) []byte {
	h := mix(uint64(i) ^ c.Seed<<40 ^ 0x5555)
	switch {
	case c.Forgers > 0 && i%500 == 123:
		who := h % uint64(c.Forgers)
		b = append(b, "github.com/forger"...)
		b = strconv.AppendUint(b, who, 10)
		b = append(b, "/x "...)
		return appendPseudo(append(b, "v0.0.0-"...), c.Time(i)+86400+int64(h>>20%(400*86400)), h)
	case i%20_000 == 777:
		return appendToolchain(b, i/20_000)
	}
	id, k, of := c.place(i)
	return c.appendModuleVersion(b, id, k, of, i, h)
}

// Kinds of modules.
const (
	tagged = iota
	pseudoOnly
	incompatible
	laterMajor // the module before it, with /vN
)

func (c *Content) moduleKind(id uint64) int {
	if id%8 == 1 {
		if k := c.moduleKind(id - 1); k == tagged {
			return laterMajor
		}
		return tagged
	}
	switch r := mix(id^c.Seed) % 100; {
	case r < 12:
		return pseudoOnly
	case r < 15:
		return incompatible
	}
	return tagged
}

func (c *Content) appendModuleVersion(b []byte, id uint64, k, of, i int64, h uint64) []byte {
	kind := c.moduleKind(id)
	major := int64(0)
	switch kind {
	case laterMajor:
		major = 2 + int64(mix(id)%4)
		b = c.appendPath(b, id-1)
		if isGopkg(b, id-1, c) {
			b = b[:len(b)-1]
		} else {
			b = append(b, "/v"...)
		}
		b = strconv.AppendInt(b, major, 10)
	default:
		b = c.appendPath(b, id)
		if isGopkg(b, id, c) {
			major = 1
		}
	}
	b = append(b, ' ')
	if kind == pseudoOnly || k%7 == 6 {
		return c.appendPseudoVersion(b, major, k, i, h)
	}
	b = append(b, 'v')
	switch kind {
	case incompatible:
		b = appendNumbers(b, 2+k/20, k%20/4, k%4)
		return append(b, "+incompatible"...)
	case tagged:
		if major == 0 && k >= of/3 {
			major = 1
		}
	}
	b = appendNumbers(b, major, k/9, k%9)
	if k%11 == 5 {
		b = strconv.AppendInt(append(b, "-rc."...), k%3, 10)
	}
	return b
}

func (c *Content) appendPseudoVersion(b []byte, major, k, i int64, h uint64) []byte {
	// Most commits are days old when somebody asks for them first, some minutes.
	u := float64(h>>11)/(1<<53) + 1e-9
	lag := int64(min(120/(u*u*u*u), 5*365*86400))
	t := c.Time(i) - lag
	if h%331 == 0 {
		t += int64(mix(h) % (12 * 3600)) // a clock in a wrong time zone
	}
	b = append(b, 'v')
	if k == 0 || major > 1 {
		b = append(appendNumbers(b, major, 0, 0), '-')
	} else {
		b = append(appendNumbers(b, major, k/9, k%9+1), "-0."...)
	}
	return appendPseudo(b, t, h)
}

func appendPseudo(b []byte, t int64, h uint64) []byte {
	b = time.Unix(t, 0).UTC().AppendFormat(b, "20060102150405")
	b = append(b, '-')
	const hex = "0123456789abcdef"
	for range 12 {
		b = append(b, hex[h&15])
		h >>= 4
	}
	return b
}

func appendNumbers(b []byte, major, minor, patch int64) []byte {
	b = strconv.AppendInt(b, major, 10)
	b = strconv.AppendInt(append(b, '.'), minor, 10)
	return strconv.AppendInt(append(b, '.'), patch, 10)
}

// appendToolchain appends the n-th version of the toolchain module: releases of
// Go in order, each for a few platforms.
func appendToolchain(b []byte, n int64) []byte {
	platforms := [...]string{"linux-amd64", "darwin-arm64", "windows-amd64"}
	p := platforms[n%3]
	n /= 3
	b = append(b, "golang.org/toolchain v0.0.1-go1."...)
	b = strconv.AppendInt(b, 21+n/10, 10)
	switch m := n % 10; m {
	case 0, 1:
		b = strconv.AppendInt(append(b, "rc"...), m+1, 10)
	default:
		b = strconv.AppendInt(append(b, '.'), m-2, 10)
	}
	return append(append(b, '.'), p...)
}

// appendHash appends "h1:", a hash in base64, and the end of the line.
func appendHash(b []byte, h uint64) []byte {
	var sum [32]byte
	for k := 0; k < 32; k += 8 {
		h = mix(h)
		binary.LittleEndian.PutUint64(sum[k:], h)
	}
	b = append(b, "h1:"...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	return append(b, '\n')
}

func appendMalformed(b []byte, h uint64) []byte {
	const good = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
	switch h % 6 {
	case 0:
		return append(b, "one line\n"...)
	case 1:
		return append(b, "example.org/m v1.0.0 "+good+"example.org/other v1.0.0/go.mod "+good...)
	case 2:
		return append(b, "example.org/m v1.0.0 h1:short=\nexample.org/m v1.0.0/go.mod "+good...)
	case 3:
		return append(b, "example.org/m 1.0.0 "+good+"example.org/m 1.0.0/go.mod "+good...)
	case 4:
		return append(b, "example.org//m v1.0.0 "+good+"example.org//m v1.0.0/go.mod "+good...)
	}
	return append(b, "example.org/m v1.0.0 "+good+"example.org/m v1.0.1/go.mod "+good...)
}
