// Package spec holds the names of builds, their log records and their sums.
//
// A build spec says which program is built for which target with which Go
// version; its text form is a path and the lookup key of the build log:
//
//	<module>@<version>/<pkgdir>/<goos>-<goarch>-<goversion>[-stripped]/
//
// Every text here may come from the network: parsing is strict, bounded, and
// accepts a text only when printing the result gives the same text again. The
// package reads and writes no files.
package spec

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"golang.org/x/mod/module"
)

// Latest stands in a request for a version or Go version to be resolved.
const Latest = "latest"

// maxLen bounds the text of a spec. Longer ones can't be stored under a name
// of their own in a URL by common servers.
const maxLen = 1500

// A Spec names one build. The zero value is not valid.
type Spec struct {
	Module    string // as in go.mod, not escaped
	Version   string // canonical, "v1.2.3"
	Dir       string // folder of the main package in the module, "" for its root
	GOOS      string
	GOARCH    string
	GoVersion string // "go1.26.3"
	Stripped  bool   // without symbol table and debug information
}

var (
	goVersionRE = regexp.MustCompile(`^go1(\.(0|[1-9][0-9]{0,3})){1,2}((rc|beta)[1-9][0-9]{0,2})?$`)
	targetRE    = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
)

// Parse reads the text form of a spec, with its trailing slash. All of its
// versions are exact: [Latest] is an error.
func Parse(s string) (Spec, error) {
	sp, err := ParseRequest(s)
	if err != nil {
		return Spec{}, err
	}
	if !sp.Exact() {
		return Spec{}, fmt.Errorf("build spec %q names no exact version: %q must be resolved first", s, Latest)
	}
	return sp, nil
}

// ParseRequest is Parse that accepts [Latest] as version and Go version.
func ParseRequest(s string) (Spec, error) {
	if len(s) > maxLen {
		return Spec{}, fmt.Errorf("build spec is %d bytes long; at most %d are allowed", len(s), maxLen)
	}
	body, ok := strings.CutSuffix(s, "/")
	if !ok {
		return Spec{}, fmt.Errorf("build spec %q has no trailing slash", s)
	}
	mod, rest, ok := strings.Cut(body, "@")
	if !ok {
		return Spec{}, fmt.Errorf("build spec %q has no @version behind the module", s)
	}
	i, j := strings.IndexByte(rest, '/'), strings.LastIndexByte(rest, '/')
	if i < 0 {
		return Spec{}, fmt.Errorf("build spec %q has no target <goos>-<goarch>-<goversion>", s)
	}
	sp := Spec{Module: mod, Version: rest[:i]}
	if i < j {
		sp.Dir = rest[i+1 : j]
		if sp.Dir == "" {
			return Spec{}, fmt.Errorf("build spec %q has an empty path element", s)
		}
	}
	target, stripped := strings.CutSuffix(rest[j+1:], "-stripped")
	sp.Stripped = stripped
	f := strings.Split(target, "-")
	if len(f) != 3 {
		return Spec{}, fmt.Errorf("build spec %q: target %q is not of the form <goos>-<goarch>-<goversion>", s, target)
	}
	sp.GOOS, sp.GOARCH, sp.GoVersion = f[0], f[1], f[2]
	if err := sp.check(); err != nil {
		return Spec{}, fmt.Errorf("build spec %q: %w", s, err)
	}
	return sp, nil
}

// String returns the text form, with a trailing slash.
func (s Spec) String() string {
	var b strings.Builder
	b.WriteString(s.Module + "@" + s.Version + "/")
	if s.Dir != "" {
		b.WriteString(s.Dir + "/")
	}
	b.WriteString(s.Target() + "/")
	return b.String()
}

// Target returns the last element of the text form, without the slash.
func (s Spec) Target() string {
	return s.GOOS + "-" + s.GOARCH + "-" + s.GoVersion + s.suffix()
}

func (s Spec) suffix() string {
	if s.Stripped {
		return "-stripped"
	}
	return ""
}

// Exact reports whether both versions are exact rather than [Latest].
func (s Spec) Exact() bool { return s.Version != Latest && s.GoVersion != Latest }

// Check says what is wrong with a spec, if anything. It checks form only; the
// module, the target or the Go version may still not exist.
func (s Spec) Check() error {
	if !s.Exact() {
		return fmt.Errorf("%q is not an exact version", Latest)
	}
	if err := s.check(); err != nil {
		return err
	}
	if n := len(s.String()); n > maxLen {
		return fmt.Errorf("build spec is %d bytes long; at most %d are allowed", n, maxLen)
	}
	return nil
}

func (s Spec) check() error {
	if err := module.CheckPath(s.Module); err != nil {
		return err
	}
	if s.Version != Latest {
		if err := module.Check(s.Module, s.Version); err != nil {
			return err
		}
		if module.CanonicalVersion(s.Version) != s.Version {
			return fmt.Errorf("version %q is not canonical, like v1.2.3", s.Version)
		}
	}
	if s.Dir != "" {
		if path.Clean(s.Dir) != s.Dir || strings.HasPrefix(s.Dir, "/") || s.Dir == "." || s.Dir == ".." || strings.HasPrefix(s.Dir, "../") {
			return fmt.Errorf("package folder %q is not a clean relative path", s.Dir)
		}
		if err := module.CheckImportPath(s.Package()); err != nil {
			return err
		}
	}
	if !targetRE.MatchString(s.GOOS) {
		return fmt.Errorf("%q is not the name of an operating system", s.GOOS)
	}
	if !targetRE.MatchString(s.GOARCH) {
		return fmt.Errorf("%q is not the name of an architecture", s.GOARCH)
	}
	if s.GoVersion != Latest && !ValidGoVersion(s.GoVersion) {
		return fmt.Errorf("%q is not a Go version like go1.26.3", s.GoVersion)
	}
	return nil
}

// ValidGoVersion reports whether v has the form of a Go version: go1.N[.P][rcX|betaX].
func ValidGoVersion(v string) bool { return goVersionRE.MatchString(v) }

// Package returns the import path of the main package.
func (s Spec) Package() string {
	if s.Dir == "" {
		return s.Module
	}
	return s.Module + "/" + s.Dir
}

// Command returns the name of the program as the go command installs it,
// without ".exe": the last element of the package's path that is not a major version.
func (s Spec) Command() string {
	dir, name := path.Split(s.Package())
	if majorRE.MatchString(name) && dir != "" {
		name = path.Base(dir)
	}
	return name
}

var majorRE = regexp.MustCompile(`^v([2-9]|[1-9][0-9]+)$`)

// Exe returns ".exe" for Windows, else "".
func (s Spec) Exe() string {
	if s.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// FileName returns the name under which the binary is served.
func (s Spec) FileName() string {
	return path.Base(s.Package()) + "-" + s.Version + "-" + s.GoVersion + s.suffix() + s.Exe()
}
