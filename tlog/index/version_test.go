package index

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/module"
)

// What the go command takes for a pseudo-version is one here, also with digits
// that are no time: it is no pre-release that anybody would offer.
func TestPseudoWithoutTime(t *testing.T) {
	for _, v := range []string{
		"v0.0.0-20201399000000-abcdefabcdef",
		"v1.2.4-0.20200101250000-abcdefabcdef",
		"v1.2.3-rc.1.0.99999999999999-abcdefabcdef",
		"v2.0.0-00000000000000-abc+incompatible",
		"v1.2.3-20201399000000-abcdefabcdef", // neither with a time nor without
	} {
		got, _, commit, ok := parseVersion([]byte(v))
		if !ok || (got.kind == pseudo) != module.IsPseudoVersion(v) {
			t.Errorf("%s: %v, %v", v, got.kind, ok)
		}
		var k clock
		if got.kind == pseudo && k.isNews(commit) {
			t.Errorf("%s is a claim of the time %d", v, commit)
		}
	}
}

// A domain is one owner, whatever hosts it has.
func TestOwners(t *testing.T) {
	var k clock
	for i := range 2000 {
		for j, path := range []string{fmt.Sprintf("h%d.example.org/m", i), fmt.Sprintf("example.org/m%d", i), fmt.Sprintf("a.h%d.example.org", i)} {
			k.observe(int64(3*i+j), ownerHash([]byte(path)), 1<<40)
		}
	}
	if k.now != 0 {
		t.Errorf("hosts of one domain moved the clock to %d", k.now)
	}
	var owners []uint64
	for _, path := range []string{"example.org/m", "example.net/m", "github.com/a/m", "github.com/b/m", "example.com", "gopkg.in/yaml.v3"} {
		owners = append(owners, ownerHash([]byte(path)))
	}
	slices.Sort(owners)
	if n := len(slices.Compact(owners)); n != 6 {
		t.Errorf("%d owners; want 6", n)
	}
	if ownerHash([]byte("github.com/a/m")) != ownerHash([]byte("github.com/A/n/v2")) {
		t.Error("one account is two owners")
	}
}

// "+5" and "05" are no numbers of major versions.
func TestSplitMajor(t *testing.T) {
	for _, tc := range []struct {
		path, base, sep string
		major           int
	}{
		{"a.b/x", "a.b/x", "/v", 1},
		{"a.b/x/v3", "a.b/x", "/v", 3},
		{"a.b/x/v+3", "a.b/x/v+3", "/v", 1},
		{"a.b/x/v03", "a.b/x/v03", "/v", 1},
		{"a.b/x/v", "a.b/x/v", "/v", 1},
		{"a.b/x/v99999999999999999999", "a.b/x/v99999999999999999999", "/v", 1},
		{"gopkg.in/x.v0", "gopkg.in/x", ".v", 0},
		{"gopkg.in/x.v3-unstable", "gopkg.in/x.v3-unstable", ".v", -1},
	} {
		if base, sep, major := splitMajor(tc.path); base != tc.base || sep != tc.sep || major != tc.major {
			t.Errorf("%s: %s %s %d; want %s %s %d", tc.path, base, sep, major, tc.base, tc.sep, tc.major)
		}
	}
}
