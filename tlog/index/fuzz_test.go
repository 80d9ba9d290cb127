package index

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

const goodHash = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

// What is read from a record is what two well-formed lines say.
func FuzzRecord(f *testing.F) {
	for _, pv := range []string{"example.org/m v1.2.3", "github.com/Azure/x/v2 v2.0.0-rc.1", "a.b v0.0.0-20240506070809-0123456789ab",
		"a.b/c v3.0.0+incompatible", "a.b v1.2.4-0.20240506070809-0123456789ab", "gopkg.in/yaml.v2 v2.4.0", "golang.org/toolchain v0.0.1-go1.27.4.linux-amd64"} {
		f.Add(fmt.Appendf(nil, "%s %s\n%s/go.mod %s\n", pv, goodHash, pv, goodHash))
	}
	f.Add([]byte("a.b v1.0.0 " + goodHash + "\na.b v1.0.1/go.mod " + goodHash + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r rec
		if !parseRecord(data, &r) || !validPath(r.path) {
			return
		}
		version := string(appendVersion(nil, r.ver, r.pre))
		if !bytes.HasPrefix(data, fmt.Appendf(nil, "%s %s h1:", r.path, version)) || bytes.Count(data, []byte("\n")) != 2 ||
			!bytes.Contains(data, fmt.Appendf(nil, "\n%s %s/go.mod h1:", r.path, version)) {
			t.Fatalf("%q was read as %s %s", data, r.path, version)
		}
		// The semantics are those of the go command's own library.
		if semver.Canonical(version)+semver.Build(version) != version {
			t.Fatalf("%q is not a canonical version", version)
		}
		if (r.kind == pseudo) != module.IsPseudoVersion(version) {
			t.Fatalf("%q was taken for a %v", version, r.kind)
		}
		if r.kind == pseudo {
			at, err := module.PseudoVersionTime(version)
			if err == nil && at.Unix() != r.commit {
				t.Fatalf("commit time of %q is %d; want %d", version, r.commit, at.Unix())
			}
		}
		if (r.kind == release) != (semver.Prerelease(version) == "") {
			t.Fatalf("%q was taken for a %v", version, r.kind)
		}
		ownerHash(r.path)
		toolchainVersion(r.pre)
	})
}

// Versions are ordered as the go command orders them.
func FuzzCompare(f *testing.F) {
	f.Add("v1.2.3", "v1.2.3-rc.1")
	f.Add("v1.0.0-alpha.1", "v1.0.0-alpha.beta")
	f.Add("v1.0.0-2", "v1.0.0-10")
	f.Add("v2.0.0+incompatible", "v2.0.0")
	f.Fuzz(func(t *testing.T, a, b string) {
		va, preA, _, okA := parseVersion([]byte(a))
		vb, preB, _, okB := parseVersion([]byte(b))
		if !okA || !okB {
			return
		}
		got := compareVer(va, vb, preA, preB)
		if want := semver.Compare(a, b); got != want && want != 0 || got == 0 && a != b {
			t.Fatalf("compare %s with %s: %d; want %d", a, b, got, want)
		}
	})
}

// Blocks of the store: any bytes are read without a panic, and what is written is read.
func FuzzBlock(f *testing.F) {
	var w blockWriter
	w.reset([]byte("a.a"))
	l := []entry{{ver: ver{major: 1, kind: release}, record: 7, time: 8, tag: 9}}
	w.add([]byte("a.b/c"), l, nil)
	w.add([]byte("a.b/cd"), l, nil)
	f.Add(w.finish([]byte("k"))[4:])
	f.Fuzz(func(t *testing.T, data []byte) {
		var br blockReader
		b := append(make([]byte, 4), data...)
		sum := blockSum([]byte("k"), data)
		b[0], b[1], b[2], b[3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		if br.open([]byte("k"), b) != nil {
			return
		}
		var list []entry
		var arena []byte
		for {
			ok, err := br.next()
			if err != nil || !ok {
				return
			}
			if list, arena, err = br.list(list[:0], arena[:0]); err != nil {
				return
			}
			prune(list)
		}
	})
}
