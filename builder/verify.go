package builder

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/sync/errgroup"

	"example.org/upkeep/builder/source"
)

// readBuildInfo is buildinfo.Read for a file that may be made to break it.
func readBuildInfo(r io.ReaderAt) (bi *debug.BuildInfo, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("it can't be read")
		}
	}()
	return buildinfo.Read(r)
}

// verifyModules hashes the unpacked files of every module that went into a
// binary again: the go command verified their zips when they were downloaded,
// and does not look at unpacked files after that.
func (b *build) verifyModules(bi *debug.BuildInfo) error {
	g := new(errgroup.Group)
	g.SetLimit(4)
	for _, m := range append([]*debug.Module{&bi.Main}, bi.Deps...) {
		g.Go(func() error {
			path, err1 := module.EscapePath(m.Path)
			version, err2 := module.EscapeVersion(m.Version)
			if err := errors.Join(err1, err2); err != nil {
				return permanent("The binary names a module that can't be: " + printable(err.Error()))
			}
			dir := filepath.Join(b.s.modCache, filepath.FromSlash(path)+"@"+version)
			got, err := dirhash.HashDir(dir, m.Path+"@"+m.Version, dirhash.Hash1)
			if err != nil {
				return fmt.Errorf("hashing the files of %s@%s: %w", m.Path, m.Version, err)
			}
			if got != m.Sum {
				// The next build fetches it anew.
				_ = removeAll(dir)
				return &source.HashError{What: m.Path + "@" + m.Version, Got: got, Want: m.Sum}
			}
			now := time.Now()
			_ = os.Chtimes(dir, now, now) // says when it was last used; missing that is no harm
			return nil
		})
	}
	return g.Wait()
}
