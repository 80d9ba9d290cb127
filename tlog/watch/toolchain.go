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

// newestToolchains returns, newest first, one version of the toolchain module
// for each of the few Go versions that can be offered: the newest releases of
// two lines and a pre-release newer than them.
func newestToolchains(versions []string) []string {
	best := map[string]string{} // Go version → module version
	for _, v := range versions {
		g := goVersion(v)
		if g == "" {
			continue
		}
		// Any platform proves that the release is there; Linux on amd64 has them all.
		if strings.HasSuffix(v, ".linux-amd64") || best[g] == "" {
			best[g] = v
		}
	}
	var all []string
	for g := range best {
		all = append(all, g)
	}
	sort.Slice(all, func(i, j int) bool { return version.Compare(all[i], all[j]) > 0 })
	var out []string
	lines := map[string]bool{}
	pre := false
	for _, g := range all {
		isPre := strings.Contains(g, "rc") || strings.Contains(g, "beta")
		switch {
		case isPre && !pre && len(lines) == 0:
			pre = true
		case !isPre && !lines[version.Lang(g)]:
			lines[version.Lang(g)] = true
		default:
			continue
		}
		if out = append(out, best[g]); len(lines) == 2 {
			break
		}
	}
	return out
}
