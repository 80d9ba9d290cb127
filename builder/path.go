package builder

import (
	"fmt"
	"strings"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/spec"
)

// A route is what the path of a request asks for.
type route struct {
	module  string    // of a module page
	version string    // of a version page
	spec    spec.Spec // of a build, perhaps with "latest"
	sum     string    // "" before the result
	suffix  string    // "", "log", "record", "dl", "events", "opinion", "retry" or a file name
	slash   bool      // only the trailing slash is missing
}

// parsePath reads the path of a request for a module, a version or a build.
func parsePath(path string) (route, error) {
	p := strings.TrimPrefix(path, "/")
	mod, rest, ok := strings.Cut(p, "@")
	if !ok {
		mod = strings.TrimSuffix(mod, "/")
		if err := module.CheckPath(mod); err != nil {
			return route{}, err
		}
		return route{module: mod}, nil
	}
	if v := strings.TrimSuffix(rest, "/"); !strings.Contains(v, "/") {
		if err := module.CheckPath(mod); err != nil {
			return route{}, err
		}
		if v != spec.Latest {
			if err := module.Check(mod, v); err != nil {
				return route{}, err
			}
			if module.CanonicalVersion(v) != v {
				return route{}, fmt.Errorf("version %q is not canonical, like v1.2.3", v)
			}
		}
		return route{module: mod, version: v}, nil
	}
	elems := strings.Split(rest, "/")
	n := len(elems)
	r := route{suffix: elems[n-1]}
	body := elems[:n-1]
	if len(body) > 1 && spec.CheckSum(body[len(body)-1]) == nil {
		r.sum = body[len(body)-1]
		body = body[:len(body)-1]
	}
	var err error
	r.spec, err = spec.ParseRequest(mod + "@" + strings.Join(body, "/") + "/")
	if err == nil && r.sum == "" && spec.CheckSum(r.suffix) == nil {
		r.sum, r.suffix, r.slash = r.suffix, "", true
	}
	if err == nil {
		return r, nil
	}
	// A spec without the trailing slash.
	if sp, err := spec.ParseRequest(mod + "@" + rest + "/"); err == nil {
		return route{spec: sp, slash: true}, nil
	}
	return route{}, fmt.Errorf("%w; a build is asked for as /<module>@<version>/<pkgdir>/<goos>-<goarch>-<goversion>/", err)
}

// guessTarget returns the target that a browser's or program's User-Agent looks like.
func guessTarget(userAgent string) (goos, goarch string) {
	ua := strings.ToLower(userAgent)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(ua, w) {
				return true
			}
		}
		return false
	}
	goos, goarch = "linux", "amd64"
	switch {
	case has("windows"):
		goos = "windows"
	case has("android"):
		goos, goarch = "android", "arm64"
	case has("mac os", "macintosh", "darwin"):
		// Browsers on every Mac say "Intel"; most Macs in use are not.
		goos, goarch = "darwin", "arm64"
	case has("freebsd"):
		goos = "freebsd"
	case has("openbsd"):
		goos = "openbsd"
	case has("netbsd"):
		goos = "netbsd"
	}
	switch {
	case has("aarch64", "arm64"):
		goarch = "arm64"
	case has("armv6", "armv7"):
		goarch = "arm"
	case has("riscv64"):
		goarch = "riscv64"
	case has("ppc64le"):
		goarch = "ppc64le"
	case has("s390x"):
		goarch = "s390x"
	case has("i386", "i686") && goos != "darwin":
		goarch = "386"
	}
	return goos, goarch
}
