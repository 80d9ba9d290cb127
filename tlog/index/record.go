package index

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// A rec is a parsed record of the checksum database. Its texts lie in the
// record.
type rec struct {
	path, pre []byte
	hash      uint64 // of the path, by this process's seed
	commit    int64  // time in a pseudo-version
	tag       uint64
	ver
	toolchain bool
}

var seed = maphash.MakeSeed()

// Limits on texts; the module proxy and the checksum database know none longer.
const (
	maxPath    = 1024
	maxVersion = 512
)

const hashText = len("h1:") + 44

var toolchainPath = []byte("golang.org/toolchain")

// parseRecord reads the two lines of a record:
//
//	<path> <version> h1:<hash>
//	<path> <version>/go.mod h1:<hash>
//
// It sets all of r. It reports whether the record is well-formed, but for the path: that is left
// to validPath, which the caller needs to ask once for each path.
func parseRecord(b []byte, r *rec) bool {
	// The second line repeats the first but for "/go.mod" and the hash, so the
	// length tells where the first ends. (A space more than there should be is in
	// the path then, or in the version, which have none.)
	first := (len(b) - len("/go.mod")) / 2
	both := first - (1 + hashText + 1) // length of "<path> <version>"
	if both <= 0 || len(b) != 2*first+len("/go.mod") || b[both] != ' ' || b[first-1] != '\n' || b[len(b)-1] != '\n' {
		return false
	}
	i := bytes.IndexByte(b[:both], ' ')
	if i <= 0 || i > maxPath || both-i-1 > maxVersion {
		return false
	}
	path, version := b[:i], b[i+1:both]
	second := b[first:]
	if !bytes.Equal(second[:both], b[:both]) || string(second[both:both+8]) != "/go.mod " {
		return false
	}
	zip, mod := b[both+1:first-1], second[both+8:len(second)-1]
	if !validHashes(zip, mod) {
		return false
	}
	var ok bool
	if r.ver, r.pre, r.commit, ok = parseVersion(version); !ok {
		return false
	}
	r.path = path
	r.hash = maphash.Bytes(seed, path)
	r.tag = binary.LittleEndian.Uint64(zip[3:]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(mod[3:]), 17)
	r.toolchain = len(path) == len(toolchainPath) && bytes.Equal(path, toolchainPath)
	return true
}

// validHashes checks the form of "h1:" and a SHA-256 in base64, twice, eight
// letters at a time.
func validHashes(a, b []byte) bool {
	a, b = a[:hashText], b[:hashText]
	if a[0] != 'h' || a[1] != '1' || a[2] != ':' || a[hashText-1] != '=' || b[0] != 'h' || b[1] != '1' || b[2] != ':' || b[hashText-1] != '=' {
		return false
	}
	u64 := binary.LittleEndian.Uint64
	all := inBase64(u64(a[3:])) & inBase64(u64(a[11:])) & inBase64(u64(a[19:])) & inBase64(u64(a[27:])) & inBase64(u64(a[35:])) & inBase64(u64(a[38:])) &
		inBase64(u64(b[3:])) & inBase64(u64(b[11:])) & inBase64(u64(b[19:])) & inBase64(u64(b[27:])) & inBase64(u64(b[35:])) & inBase64(u64(b[38:]))
	return all&highBits == highBits
}

const (
	eachByte = 0x0101010101010101
	highBits = 0x80 * eachByte
)

// inBase64 has 0x80 set for each byte of w that is a letter, a digit, '+' or
// '/', if none is above 0x7f, and for no byte above. What else is in the
// result means nothing.
func inBase64(w uint64) uint64 {
	plus := ^((w ^ '+'*eachByte) + 0x7f*eachByte)
	return (letters(w) | between(w, '/', '9') | plus) &^ w // '/' is before '0'
}

// letters has 0x80 set for each byte of w that is a letter: no other byte
// becomes a small letter by setting a bit.
func letters(w uint64) uint64 { return between(w|0x20*eachByte, 'a', 'z') }

// between has 0x80 set for each byte of w from low to high, if none is above
// 0x7f: a byte plus 0x80-x has its high bit set if it is at least x.
func between(w, low, high uint64) uint64 {
	return (w + (0x80-low)*eachByte) &^ (w + (0x7f-high)*eachByte)
}

const (
	inPath = 1 << iota
	inHost
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		letter := c >= 'a' && c <= 'z'
		upper := c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if letter || digit || c == '-' || c == '.' {
			t[c] |= inHost
		}
		if letter || upper || digit || c == '-' || c == '.' || c == '_' || c == '~' || c == '!' || c == '+' {
			t[c] |= inPath
		}
	}
	return t
}()

// validPath checks the form of a module path: a host name with a dot, then
// elements of letters, digits and a few marks, none of them empty.
func validPath(p []byte) bool {
	i, dot := 0, false
	for ; i < len(p) && p[i] != '/'; i++ {
		if class[p[i]]&inHost == 0 {
			return false
		}
		dot = dot || p[i] == '.'
	}
	if !dot || p[0] == '.' || p[0] == '-' || p[i-1] == '.' {
		return false
	}
	for ; i < len(p); i++ {
		if p[i] == '/' {
			if i+1 == len(p) || p[i+1] == '/' {
				return false
			}
		} else if class[p[i]]&inPath == 0 {
			return false
		}
	}
	return true
}

// ownerHash hashes the part of a path that tells who controls it: on hosts that
// serve many owners the host and the first element, else the last two labels of
// the host, since whoever has a domain has as many hosts in it as he likes. (Of a
// suffix like co.uk all are one owner then, which moves no time.) It is part of
// what must be the same on every machine (see clock).
func ownerHash(path []byte) uint64 {
	host, rest, _ := bytes.Cut(path, []byte("/"))
	owner := host
	if sharedHost(host) {
		first, _, _ := bytes.Cut(rest, []byte("/"))
		owner = path[:min(len(path), len(host)+1+len(first))]
	} else if i := bytes.LastIndexByte(host, '.'); i > 0 {
		owner = host[bytes.LastIndexByte(host[:i], '.')+1:]
	}
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range owner {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A' // such hosts know no case
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func sharedHost(host []byte) bool {
	switch string(host) {
	case "github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "gitee.com", "git.sr.ht", "gopkg.in", "gitea.com", "sourceforge.net", "launchpad.net", "hub.jazz.net":
		return true
	}
	return false
}
