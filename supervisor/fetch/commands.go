package fetch

import (
	"archive/zip"
	"context"
	"fmt"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/internal/goproxy"
)

const maxGoFile = 4 << 20

// Commands lists the folders of a version that hold a main package for the
// target, "" for the module's root. It reads the module's zip, verified.
func (f *Fetcher) Commands(ctx context.Context, mod, version, goos, goarch string) ([]string, error) {
	if f.proxy == nil {
		return nil, errNoProxy
	}
	s, err := f.Sums(ctx, mod, version)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(f.cfg.Dir, "module-*.zip")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := f.proxy.Zip(ctx, mod, version, file, goproxy.MaxZip); err != nil {
		return nil, err
	}
	sum, err := dirhash.HashZip(file.Name(), dirhash.Hash1)
	if err != nil {
		return nil, fmt.Errorf("reading the zip of %s@%s: %w", mod, version, err)
	}
	if sum != s.Zip {
		err := &VerifyError{Kind: SumDBBad, Err: fmt.Errorf("the module proxy's zip of %s@%s has the hash %s, and the checksum database %s says %s", mod, version, sum, f.db.Name, s.Zip)}
		f.m.result(err)
		return nil, err
	}
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	zr, err := zip.NewReader(file, fi.Size())
	if err != nil {
		return nil, fmt.Errorf("reading the zip of %s@%s: %w", mod, version, err)
	}
	return mainPackages(zr, mod+"@"+version+"/", goos, goarch), nil
}

// mainPackages lists the folders with a file of package main for the target.
func mainPackages(zr *zip.Reader, prefix, goos, goarch string) []string {
	var out []string
	for _, zf := range zr.File {
		name, ok := strings.CutPrefix(zf.Name, prefix)
		if !ok || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || zf.UncompressedSize64 > maxGoFile {
			continue
		}
		dir := path.Dir(name)
		if dir == "." {
			dir = ""
		}
		if slices.Contains(out, dir) || ignored(dir) || !matchName(path.Base(name), goos, goarch) {
			continue
		}
		rc, err := zf.Open()
		if err != nil {
			continue
		}
		src, err := io.ReadAll(io.LimitReader(rc, maxGoFile))
		rc.Close()
		if err == nil && isMain(src, goos, goarch) {
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return out
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

// isMain reports whether a file is of package main and for the target.
func isMain(src []byte, goos, goarch string) bool {
	f, err := parser.ParseFile(token.NewFileSet(), "", src, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil || f.Name.Name != "main" {
		return false
	}
	for _, g := range f.Comments {
		if g.Pos() > f.Package {
			break
		}
		for _, c := range g.List {
			if !constraint.IsGoBuild(c.Text) {
				continue
			}
			expr, err := constraint.Parse(c.Text)
			if err != nil {
				return false
			}
			return expr.Eval(func(tag string) bool {
				return tag == goos || tag == goarch || tag == "gc" || tag == "unix" && !slices.Contains(notUnix, goos) || strings.HasPrefix(tag, "go1.")
			})
		}
	}
	return true
}
