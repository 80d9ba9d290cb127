// Package install puts a service's binaries under its name and back.
//
// The folder of the service's binary is trusted. A binary is put in use by a
// rename, so that at any instant the name is that of the old or of the new
// one, complete.
//
// Files: beside the service's name (for example hello) the binaries under
// versioned names (hello-v1.0.1-go1.26.8). The name itself is a symlink to one
// of them; when it isn't a symlink it is a second hard link.
package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/durable"
)

// Partial is what the name of a file that isn't verified yet contains behind
// the name that it is going to have.
const Partial = ".tmp-"

// Place is where a service's binary lives.
type Place struct {
	Path string // as configured
	Dir  string // of Path
}

// At returns the place of a service.
func At(path string) Place { return Place{path, filepath.Dir(path)} }

// Current returns the file that the service's name stands for. For a symlink
// that is the file it points at, whether that exists or not; only the first
// step is taken, since that is the one that [Place.Switch] changes.
func (p Place) Current() (file string, link bool, err error) {
	fi, err := os.Lstat(p.Path)
	if err != nil {
		return "", false, fmt.Errorf("looking at the service's binary: %w", err)
	}
	if fi.Mode()&fs.ModeSymlink == 0 {
		return p.Path, false, nil
	}
	target, err := os.Readlink(p.Path)
	if err != nil {
		return "", true, fmt.Errorf("looking at the service's binary: %w", err)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(p.Dir, target)
	}
	return target, true, nil
}

// File returns the versioned name for a binary.
func (p Place) File(name string) string { return filepath.Join(p.Dir, name) }

// Keep gives the binary in use a name of its own when it has none, which is so
// when the service's name is no symlink, and returns that name.
func (p Place) Keep(name string) (string, error) {
	file, link, err := p.Current()
	if err != nil || link {
		return file, err
	}
	own := p.File(name)
	if same(file, own) {
		return own, nil
	}
	if err := hardlink(file, own); err != nil {
		return "", fmt.Errorf("keeping the binary in use: %w", err)
	}
	return own, durable.SyncDir(p.Dir)
}

// Switch makes the service's name stand for a file beside it.
func (p Place) Switch(file string) error {
	cur, link, err := p.Current()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || link {
		if link && cur == file {
			return nil
		}
		target := file
		if filepath.Dir(file) == p.Dir {
			target = filepath.Base(file)
		}
		if err := durable.Symlink(target, p.Path); err != nil {
			return fmt.Errorf("putting %s in use: %w", filepath.Base(file), err)
		}
		return nil
	}
	if same(cur, file) {
		return nil
	}
	tmp := p.Path + Partial + "switch"
	_ = os.Remove(tmp) // left over from a crash
	if err := hardlink(file, tmp); err != nil {
		return fmt.Errorf("putting %s in use: %w", filepath.Base(file), err)
	}
	if err := durable.Rename(tmp, p.Path); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("putting %s in use: %w", filepath.Base(file), err)
	}
	return nil
}

// Uses reports whether the service's name stands for the file.
func (p Place) Uses(file string) bool {
	cur, link, err := p.Current()
	if err != nil {
		return false
	}
	return link && cur == file || same(cur, file)
}

// LikeOld gives a new binary owner and mode of the old one, executable for
// whoever can read it.
func LikeOld(file, old string) error {
	fi, err := os.Stat(old)
	if err != nil {
		return fmt.Errorf("taking over owner and mode: %w", err)
	}
	// The owner first: changing it clears set-user-id bits, which are not taken over at all.
	if err := chown(file, fi); err != nil {
		return fmt.Errorf("taking over the owner of %s: %w", filepath.Base(old), err)
	}
	mode := fi.Mode().Perm()
	mode |= (mode & 0o444) >> 2
	if err := os.Chmod(file, mode); err != nil {
		return fmt.Errorf("taking over the mode of %s: %w", filepath.Base(old), err)
	}
	if err := copyAttributes(file, old); err != nil {
		return err
	}
	// A binary that may not be executed after a power cut would be no use.
	if err := durable.SyncFile(file); err != nil {
		return fmt.Errorf("taking over owner and mode: %w", err)
	}
	return nil
}

// Privileges names what gives whoever executes the file rights of its own, and
// which a new binary will not have; "" when there is nothing.
func Privileges(file string) string {
	fi, err := os.Stat(file)
	switch {
	case Capabilities(file):
		return "file capabilities"
	case err == nil && fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0:
		return "a set-user-id or set-group-id bit"
	}
	return ""
}

// CheckOpen reads an open file and compares its sum.
func CheckOpen(f *os.File, sum string) error {
	d := spec.NewDigest()
	if _, err := io.Copy(d, f); err != nil {
		return fmt.Errorf("reading a binary: %w", err)
	}
	if d.Sum() != sum {
		return fmt.Errorf("%s was changed on this machine after it was downloaded: its sum is %s and not %s", f.Name(), d.Sum(), sum)
	}
	return nil
}

// Sum returns a file's sum, in the form of the build log, and its size.
func Sum(file string) (sum string, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, fmt.Errorf("reading a binary: %w", err)
	}
	defer f.Close()
	d := spec.NewDigest()
	if _, err := io.Copy(d, f); err != nil {
		return "", 0, fmt.Errorf("reading a binary: %w", err)
	}
	return d.Sum(), d.Size(), nil
}

// Remove removes a binary, unless it is the one in use.
func (p Place) Remove(file string) error {
	if filepath.Dir(file) != p.Dir || p.Uses(file) {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old binary: %w", err)
	}
	return nil
}

// leftOver is what follows the service's name in the name of an unfinished
// binary. Services whose names begin alike may share the folder.
var leftOver = regexp.MustCompile(`^(\.exe)?(-(v[0-9]+\.[0-9]+\.[0-9]+|_devel_)[^/]*-go1[^/]*)?\.tmp-`)

// Clean removes what interrupted downloads and switches left behind.
func (p Place) Clean() error {
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return fmt.Errorf("removing left-over downloads: %w", err)
	}
	base := strings.TrimSuffix(filepath.Base(p.Path), ".exe")
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		if ok && !e.IsDir() && leftOver.MatchString(rest) {
			if err := os.Remove(filepath.Join(p.Dir, e.Name())); err != nil {
				return fmt.Errorf("removing left-over downloads: %w", err)
			}
		}
	}
	return durable.Clean(p.Path)
}

// A SpaceError says that a folder's disk is too full.
type SpaceError struct {
	Dir        string
	Need, Have uint64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s has %d MB free, the new binary needs %d MB", e.Dir, e.Have>>20, e.Need>>20+1)
}

// reserve stays free for everybody else.
const reserve = 16 << 20

// Room checks that a binary of the size fits.
func (p Place) Room(size int64) error {
	free, err := freeSpace(p.Dir)
	if err != nil {
		return fmt.Errorf("asking for free disk space: %w", err)
	}
	if need := uint64(size) + reserve; free < need {
		return &SpaceError{p.Dir, need, free}
	}
	return nil
}

func same(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

// hardlink links, or copies where the file system has no links.
func hardlink(old, new string) error {
	if same(old, new) {
		return nil
	}
	if err := durable.Try("create", new); err != nil {
		return err
	}
	tmp := new + Partial + "link"
	_ = os.Remove(tmp)
	err := os.Link(old, tmp)
	if err == nil {
		if err := os.Rename(tmp, new); err != nil {
			_ = os.Remove(tmp)
			return err
		}
		return nil
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		in, err := os.Open(old)
		if err != nil {
			return err
		}
		defer in.Close()
		fi, err := in.Stat()
		if err != nil {
			return err
		}
		return durable.WriteTo(new, fi.Mode().Perm(), func(w io.Writer) error {
			_, err := io.Copy(w, in)
			return err
		})
	}
	return err
}
