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
		d := spec.NewDigest()
		if _, err = io.Copy(io.MultiWriter(z, d), src); err == nil && d.Hex() != hex {
			err = errors.Join(fmt.Errorf("the stored binary %s has the hash %s; it is removed, and built again when it is asked for", hex, d.Hex()),
				os.Remove(b.path(hex, plain)))
		}
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

// CheckBinaries hashes every binary in a folder of them, what the compressed
// forms hold too, and calls problem for each that is not what its name says.
func CheckBinaries(ctx context.Context, dir string, problem func(string)) (checked int, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		return 0, err
	}
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return checked, err
		}
		hex, ext, _ := strings.Cut(filepath.Base(name), ".")
		if ext != "" {
			ext = "." + ext
		}
		sum, err := hashBinary(name, form(ext))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile to save space
		}
		if errors.Is(err, fs.ErrPermission) {
			return checked, fmt.Errorf("checking binaries: %w", err)
		}
		if ext == "" {
			checked++
		}
		remedy := "remove it, and it is made again when it is asked for"
		if err != nil {
			problem(fmt.Sprintf("binary %s can't be read: %v: %s", name, err, remedy))
		} else if sum != hex {
			problem(fmt.Sprintf("binary %s has the hash %s: %s", name, sum, remedy))
		}
	}
	return checked, nil
}

// hashBinary returns the hash of the binary in a file.
func hashBinary(name string, f form) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var r io.Reader = file
	switch f {
	case gzipped:
		z, err := kgzip.NewReader(file)
		if err != nil {
			return "", err
		}
		r = z
	case zstded:
		z, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return "", err
		}
		defer z.Close()
		r = z
	}
	d := spec.NewDigest()
	if _, err := io.Copy(d, r); err != nil {
		return "", err
	}
	return d.Hex(), nil
}
