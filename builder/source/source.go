// Package source gets go.mod files and zips of modules and checks each against
// the checksum database.
//
// Trusted: the checksum database's key and what its log proves. Not trusted:
// module proxies. What a proxy answers is used only after its hash was found in
// the database's log; lists of versions can't be checked and serve as hints.
// The package keeps no files; the log client keeps its state in a folder of its own.
package source

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/tlog"
)

// A HashError is content that differs from what the checksum database records.
type HashError struct {
	What      string // module@version or module@version/go.mod
	Got, Want string
}

func (e *HashError) Error() string {
	return fmt.Sprintf("%s from the module proxy has the hash %s, but the checksum database records %s: the proxy served something else than everybody else gets", e.What, e.Got, e.Want)
}

// A Database answers lookups with verified records, as [*tlog.Client] does.
type Database interface {
	Lookup(ctx context.Context, key string) (tlog.Record, error)
}

// A Source is a module proxy and the checksum database that it is checked against.
type Source struct {
	Proxy *goproxy.Client
	DB    Database
}

// Sums are the hashes of a version that the checksum database records.
type Sums struct {
	Zip   string // h1:…
	GoMod string
}

// Sums looks a version up in the checksum database.
func (s *Source) Sums(ctx context.Context, m module.Version) (Sums, error) {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return Sums{}, err
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return Sums{}, err
	}
	rec, err := s.DB.Lookup(ctx, path+"@"+version)
	if err != nil {
		return Sums{}, fmt.Errorf("looking up %s in the checksum database: %w", m, err)
	}
	var sums Sums
	for line := range strings.Lines(string(rec.Data)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != m.Path {
			continue
		}
		switch f[1] {
		case m.Version:
			sums.Zip = f[2]
		case m.Version + "/go.mod":
			sums.GoMod = f[2]
		}
	}
	if sums.Zip == "" || sums.GoMod == "" {
		return Sums{}, fmt.Errorf("the checksum database's record for %s holds other modules or versions", m)
	}
	return sums, nil
}

// MaxGoMod bounds a go.mod file that is read here, far above those of the largest
// modules: parsed, it takes hundreds of times its size. One that is longer and
// has the hash in the checksum database is [ErrTooLarge].
const MaxGoMod = 512 << 10

// ErrTooLarge is returned for a verified file that is longer than is read here.
var ErrTooLarge = errors.New("larger than is read here")

// GoMod returns the verified go.mod file of a version.
func (s *Source) GoMod(ctx context.Context, m module.Version) ([]byte, error) {
	data, err := s.Proxy.GoMod(ctx, m.Path, m.Version)
	if err != nil {
		return nil, err
	}
	sums, err := s.Sums(ctx, m)
	if err != nil {
		return nil, err
	}
	got, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
	if err != nil {
		return nil, err
	}
	if got != sums.GoMod {
		return nil, &HashError{m.String() + "/go.mod", got, sums.GoMod}
	}
	if len(data) > MaxGoMod {
		return nil, fmt.Errorf("the go.mod file of %s is %w (%d bytes)", m, ErrTooLarge, MaxGoMod)
	}
	return data, nil
}

// Zip writes the verified zip of a version to a new file of the given name and
// returns its h1 hash. On an error there is no file. progress, which may be
// nil, is told the number of bytes so far.
func (s *Source) Zip(ctx context.Context, m module.Version, file string, max int64, progress func(int64)) (sum string, err error) {
	sums, err := s.Sums(ctx, m)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", fmt.Errorf("downloading %s: %w", m, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	w := io.Writer(f)
	if progress != nil {
		w = &counter{w: f, progress: progress}
	}
	if err := errors.Join(s.Proxy.Zip(ctx, m.Path, m.Version, w, max), f.Close()); err != nil {
		return "", err
	}
	if err := checkEntries(file); err != nil {
		return "", fmt.Errorf("reading the zip of %s: %w", m, err)
	}
	got, err := hashZip(ctx, file, maxUnpacked)
	if err != nil {
		return "", fmt.Errorf("reading the zip of %s: %w", m, err)
	}
	if got != sums.Zip {
		return "", &HashError{m.String(), got, sums.Zip}
	}
	return got, nil
}

// maxUnpacked bounds what is unpacked of a zip to hash it, far above modules and
// toolchains: until then anything may be in it.
const maxUnpacked = 4 << 30

// hashZip is [dirhash.HashZip] that ends, with ctx and after max bytes.
func hashZip(ctx context.Context, file string, max int64) (string, error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return "", err
	}
	defer z.Close()
	var names []string
	files := map[string]*zip.File{}
	for _, f := range z.File {
		names = append(names, f.Name)
		files[f.Name] = f
	}
	return dirhash.Hash1(names, func(name string) (io.ReadCloser, error) {
		r, err := files[name].Open()
		if err != nil {
			return nil, err
		}
		return &bounded{r, ctx, &max}, nil
	})
}

// bounded reads files that may have so many bytes left together.
type bounded struct {
	io.ReadCloser
	ctx  context.Context
	left *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := context.Cause(b.ctx); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return 0, fmt.Errorf("%w (unpacked)", httpget.ErrTooLarge)
	}
	return n, err
}

// maxEntries bounds the files of a zip: each takes 2 KiB of memory while it is
// read. The largest modules and toolchains have a fifth of that.
const maxEntries = 100_000

// checkEntries refuses a zip with too many files. What its directory says of
// their number is not to be relied on; each has this in front.
func checkEntries(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	mark := []byte("PK\x01\x02")
	buf := make([]byte, 256<<10)
	keep, count := 0, 0 // bytes of the part before, which a mark may start in
	for {
		n, err := f.Read(buf[keep:])
		part := buf[:keep+n]
		if count += bytes.Count(part, mark); count > maxEntries {
			return fmt.Errorf("%w (%d files)", httpget.ErrTooLarge, maxEntries)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		keep = copy(buf, part[max(0, len(part)-len(mark)+1):])
	}
}

type counter struct {
	w        io.Writer
	n        int64
	progress func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.progress(c.n)
	return n, err
}
