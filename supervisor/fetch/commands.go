package fetch

import (
	"archive/zip"
	"context"
	"fmt"
	"go/build/constraint"
	"go/token"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/internal/goproxy"
)

const maxGoFile = 4 << 20

// Packages are the folders of a module that hold packages for a target, ""
// for the module's root.
type Packages struct {
	Commands  []string
	Libraries []string
}

// Packages lists a version's packages. It reads the module's zip, verified.
func (f *Fetcher) Packages(ctx context.Context, mod, version, goos, goarch string) (Packages, error) {
	if f.proxy == nil {
		return Packages{}, errNoProxy
	}
	s, err := f.Sums(ctx, mod, version)
	if err != nil {
		return Packages{}, err
	}
	file, err := os.CreateTemp(f.cfg.Dir, "module-*.zip")
	if err != nil {
		return Packages{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := f.proxy.Zip(ctx, mod, version, file, goproxy.MaxZip); err != nil {
		return Packages{}, err
	}
	sum, err := dirhash.HashZip(file.Name(), dirhash.Hash1)
	if err != nil {
		return Packages{}, fmt.Errorf("reading the zip of %s@%s: %w", mod, version, err)
	}
	if sum != s.Zip {
		err := &VerifyError{Kind: SumDBBad, Err: fmt.Errorf("the module proxy's zip of %s@%s has the hash %s, and the checksum database %s says %s", mod, version, sum, f.db.Name, s.Zip)}
		f.m.result(err)
		return Packages{}, err
	}
	fi, err := file.Stat()
	if err != nil {
		return Packages{}, err
	}
	zr, err := zip.NewReader(file, fi.Size())
	if err != nil {
		return Packages{}, fmt.Errorf("reading the zip of %s@%s: %w", mod, version, err)
	}
	return packages(zr, mod+"@"+version+"/", goos, goarch), nil
}

// packages lists the folders with Go files for the target.
func packages(zr *zip.Reader, prefix, goos, goarch string) Packages {
	dirs := map[string]bool{} // true for commands
	for _, zf := range zr.File {
		name, ok := strings.CutPrefix(zf.Name, prefix)
		if !ok || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || zf.UncompressedSize64 > maxGoFile {
			continue
		}
		dir := path.Dir(name)
		if dir == "." {
			dir = ""
		}
		if dirs[dir] || ignored(dir) || !matchName(path.Base(name), goos, goarch) {
			continue
		}
		rc, err := zf.Open()
		if err != nil {
			continue
		}
		src, err := io.ReadAll(io.LimitReader(rc, maxGoFile))
		rc.Close()
		if err != nil {
			continue
		}
		if pkg, ok := packageOf(src, goos, goarch); ok {
			dirs[dir] = pkg == "main"
		}
	}
	var p Packages
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if dirs[dir] {
			p.Commands = append(p.Commands, dir)
		} else {
			p.Libraries = append(p.Libraries, dir)
		}
	}
	return p
}

// ignored reports whether the go command does not look into the folder.
func ignored(dir string) bool {
	for elem := range strings.SplitSeq(dir, "/") {
		if elem == "testdata" || elem == "vendor" || strings.HasPrefix(elem, "_") || strings.HasPrefix(elem, ".") {
			return true
		}
	}
	return false
}

var (
	knownOS   = strings.Fields("aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows")
	knownArch = strings.Fields("386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm")
	notUnix   = strings.Fields("js plan9 wasip1 windows")
)

// matchName judges a file name like x_linux_amd64.go.
func matchName(file, goos, goarch string) bool {
	f := strings.Split(strings.TrimSuffix(file, ".go"), "_")[1:]
	if n := len(f); n > 0 && slices.Contains(knownArch, f[n-1]) {
		if f[n-1] != goarch {
			return false
		}
		f = f[:n-1]
	}
	if n := len(f); n > 0 && slices.Contains(knownOS, f[n-1]) {
		return f[n-1] == goos
	}
	return true
}

// packageOf returns the package of a file that is for the target.
func packageOf(src []byte, goos, goarch string) (string, bool) {
	name, build, ok := header(string(src))
	if !ok || build == "" {
		return name, ok
	}
	expr, err := constraint.Parse(build)
	return name, err == nil && expr.Eval(func(tag string) bool {
		return tag == goos || tag == goarch || tag == "gc" || tag == "unix" && !slices.Contains(notUnix, goos) || strings.HasPrefix(tag, "go1.")
	})
}

// header reads a Go file up to its package's name: comments, of which the first
// //go:build line is returned, and the package clause. (A Go parser would add
// more to the program than all of this file.)
func header(src string) (name, build string, ok bool) {
	src = strings.TrimPrefix(src, "\ufeff")
	word := func() string {
		n := strings.IndexFunc(src, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if n < 0 {
			n = len(src)
		}
		w := src[:n]
		src = src[n:]
		return w
	}
	seen := false // "package"
	for {
		src = strings.TrimLeft(src, " \t\r\n")
		switch {
		case strings.HasPrefix(src, "//"):
			var line string
			line, src, _ = strings.Cut(src, "\n")
			if line = strings.TrimRight(line, " \t\r"); !seen && build == "" && constraint.IsGoBuild(line) {
				build = line
			}
		case strings.HasPrefix(src, "/*"):
			_, rest, closed := strings.Cut(src[2:], "*/")
			if !closed {
				return "", "", false
			}
			src = rest
		case !seen:
			if word() != "package" {
				return "", "", false
			}
			seen = true
		default:
			w := word()
			return w, build, token.IsIdentifier(w)
		}
	}
}
