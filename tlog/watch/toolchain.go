package watch

import (
	"go/version"
	"sort"
	"strings"
)

// goVersion returns the Go version in a version of the toolchain module
// ("v0.0.1-go1.27.4.linux-amd64"), "" if there is none.
func goVersion(v string) string {
	v, ok := strings.CutPrefix(v, "v0.0.1-")
	i := strings.LastIndexByte(v, '.')
	if !ok || i < 0 || !version.IsValid(v[:i]) {
		return ""
	}
	return v[:i]
}

// sortedToolchains returns the versions of the toolchain module, newest Go
// first. Any platform proves that a release is there; Linux on amd64, which has
// them all, comes first.
func sortedToolchains(versions []string) []string {
	type toolchain struct {
		text, goVersion string
		first           bool
	}
	var all []toolchain
	for _, v := range versions {
		if g := goVersion(v); g != "" {
			all = append(all, toolchain{v, g, strings.HasSuffix(v, ".linux-amd64")})
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		if c := version.Compare(all[i].goVersion, all[j].goVersion); c != 0 {
			return c > 0
		}
		return all[i].first && !all[j].first
	})
	out := make([]string, len(all))
	for i := range all {
		out[i] = all[i].text
	}
	return out
}

// newestToolchains returns of sorted versions those of the few Go versions that
// can be offered: the newest releases of two lines and a pre-release newer than
// them.
func newestToolchains(sorted []string) []string {
	var out []string
	lines := map[string]bool{}
	pre := false
	for _, v := range sorted {
		g := goVersion(v)
		isPre := strings.Contains(g, "rc") || strings.Contains(g, "beta")
		switch {
		case isPre && !pre && len(lines) == 0:
			pre = true
		case !isPre && !lines[version.Lang(g)]:
			lines[version.Lang(g)] = true
		default:
			continue
		}
		if out = append(out, v); len(lines) == 2 {
			break
		}
	}
	return out
}
