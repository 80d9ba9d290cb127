package toolchain

import (
	"go/version"
	"slices"
	"strings"

	"example.org/upkeep/builder/spec"
)

// ModulePath is the module that holds Go's toolchains.
const ModulePath = "golang.org/toolchain"

const versionPrefix = "v0.0.1-"

// Oldest is the oldest Go version that builds are made with: older toolchains
// don't say in a file which targets they have.
const Oldest = "go1.21.0"

// moduleVersion returns the version of [ModulePath] that holds a Go version for a host.
func moduleVersion(goVersion string, host Target) string {
	return versionPrefix + goVersion + "." + host.GOOS + "-" + host.GOARCH
}

// goVersions returns the Go versions among versions of [ModulePath] that there
// are for a host, newest first.
func goVersions(versions []string, host Target) []string {
	var list []string
	for _, v := range versions {
		v, ok1 := strings.CutPrefix(v, versionPrefix)
		v, ok2 := strings.CutSuffix(v, "."+host.GOOS+"-"+host.GOARCH)
		if ok1 && ok2 && usable(v) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return version.Compare(b, a) })
	return slices.Compact(list)
}

// usable reports whether v names a toolchain (and not only a language version)
// that is not too old.
func usable(v string) bool {
	return spec.ValidGoVersion(v) && version.IsValid(v) && version.Compare(v, Oldest) >= 0 && version.Lang(v) != v
}

// released reports whether v is neither a release candidate nor a beta.
func released(v string) bool {
	return !strings.Contains(v, "rc") && !strings.Contains(v, "beta")
}

// A Line is what people choose a Go version from.
type Line struct {
	Current  string // newest release
	Previous string // newest patch of the release line before it, may be ""
	Next     string // release candidate newer than Current, may be ""
}

// choose returns the current, previous and next among versions sorted newest first.
func choose(versions []string) Line {
	var l Line
	for _, v := range versions {
		switch {
		case !released(v):
			if l.Current == "" && l.Next == "" && strings.Contains(v, "rc") {
				l.Next = v
			}
		case l.Current == "":
			l.Current = v
		case l.Previous == "" && version.Lang(v) != version.Lang(l.Current):
			l.Previous = v
		}
	}
	return l
}
