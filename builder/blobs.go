package builder

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/singleflight"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/durable"
)

// blobs stores binaries under their SHA-256, with a gzip and a zstd form of
// each beside it that is made when it is first asked for.
type blobs struct {
	dir    string
	single singleflight.Group
}

// A form is how a binary is stored.
type form string

const (
	plain   form = ""
	gzipped form = ".gz"
	zstded  form = ".zst"
)

func openBlobs(dir string) (*blobs, error) {
	if err := os.MkdirAll(filepath.Join(dir, "new"), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of binaries: %w", err)
	}
	// What a crash left half written.
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	if err != nil {
		return nil, fmt.Errorf("reading the folder of binaries: %w", err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, "new", e.Name())); err != nil {
			return nil, fmt.Errorf("removing a half-written binary: %w", err)
		}
	}
	return &blobs{dir: dir}, nil
}

func (b *blobs) path(hex string, f form) string {
	return filepath.Join(b.dir, hex[:2], hex+string(f))
}

// put stores a binary durably.
func (b *blobs) put(r io.Reader) (*spec.Digest, error) {
	d := spec.NewDigest()
	err := b.write(func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, d), r)
		return err
	}, func() string { return b.path(d.Hex(), plain) })
	if err != nil {
		return nil, fmt.Errorf("storing the binary: %w", err)
	}
	return d, nil
}

func (b *blobs) write(fill func(io.Writer) error, name func() string) error {
	f, err := os.CreateTemp(filepath.Join(b.dir, "new"), "")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(fill(f), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name()), 0o755); err != nil {
		return err
	}
	return durable.Rename(f.Name(), name())
}

// open returns a stored form of a binary, making it if needed. A binary that
// is not there is fs.ErrNotExist.
func (b *blobs) open(hex string, f form) (*os.File, error) {
	now := time.Now()
	_ = os.Chtimes(b.path(hex, plain), now, now) // says when it was last used; missing that is no harm
	file, err := os.Open(b.path(hex, f))
	if err == nil || f == plain || !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	if _, err, _ := b.single.Do(hex+string(f), func() (any, error) { return nil, b.compress(hex, f) }); err != nil {
		return nil, err
	}
	return os.Open(b.path(hex, f))
}

func (b *blobs) compress(hex string, f form) error {
	src, err := os.Open(b.path(hex, plain))
	if err != nil {
		return err
	}
	defer src.Close()
	return b.write(func(w io.Writer) error {
		var z io.WriteCloser
		var err error
		if f == zstded {
			z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		} else {
			z, err = kgzip.NewWriterLevel(w, gzip.DefaultCompression)
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(z, src)
		return errors.Join(err, z.Close())
	}, func() string { return b.path(hex, f) })
}

func (b *blobs) has(hex string) bool {
	_, err := os.Stat(b.path(hex, plain))
	return err == nil
}

// keepFor is how long a binary stays that was just stored or used.
const keepFor = time.Minute

// trim removes the least recently used binaries until all together take at
// most quota bytes. It returns how many it removed.
func (b *blobs) trim(quota int64, now time.Time) (int, error) {
	type blob struct {
		hex  string
		size int64
		used time.Time
	}
	all := map[string]*blob{}
	var total int64
	err := filepath.WalkDir(b.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return nil // renamed or removed meanwhile
		}
		hex, ext, _ := strings.Cut(d.Name(), ".")
		if len(hex) != 64 {
			return nil
		}
		bl := all[hex]
		if bl == nil {
			bl = &blob{hex: hex}
			all[hex] = bl
		}
		bl.size += fi.Size()
		total += fi.Size()
		if ext == "" {
			bl.used = fi.ModTime()
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("counting the binaries: %w", err)
	}
	byUse := slices.SortedFunc(maps.Values(all), func(x, y *blob) int { return x.used.Compare(y.used) })
	removed := 0
	for _, bl := range byUse {
		if total <= quota || now.Sub(bl.used) < keepFor {
			break
		}
		// The plain form last: without it the others are garbage that the next round removes.
		for _, f := range []form{gzipped, zstded, plain} {
			if err := os.Remove(b.path(bl.hex, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return removed, fmt.Errorf("removing a binary: %w", err)
			}
		}
		total -= bl.size
		removed++
	}
	return removed, nil
}

// CheckBinaries hashes every binary in a folder of them, and calls problem for
// each that is not what its name says. Compressed forms are made from those and
// checked by every client.
func CheckBinaries(ctx context.Context, dir string, problem func(string)) (checked int, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		return 0, err
	}
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return checked, err
		}
		if filepath.Ext(name) != "" {
			continue
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile to save space
		}
		if err != nil {
			return checked, fmt.Errorf("checking binaries: %w", err)
		}
		d := spec.NewDigest()
		_, err = io.Copy(d, f)
		f.Close()
		checked++
		if err != nil {
			problem(fmt.Sprintf("binary %s can't be read: %v", name, err))
		} else if d.Hex() != filepath.Base(name) {
			problem(fmt.Sprintf("binary %s has the hash %s: remove it, and it is built again when it is asked for", name, d.Hex()))
		}
	}
	return checked, nil
}
