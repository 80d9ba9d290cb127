package builder

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"example.org/upkeep/internal/durable"
)

// Results of compiling dependencies are shared between builds under these
// conditions: each compiler process could write to its own package's folder
// only (sandbox.Tool), so what hostile source can make of the compiler stays
// under the key of that source; the build ended well; and every file is checked
// here against the key under which the go command would find it.

// maxShared bounds a file that is shared; compiled packages are far smaller.
const maxShared = 128 << 20

var (
	cacheFileRE = regexp.MustCompile(`^([0-9a-f]{64})-([ad])$`)
	actionRE    = regexp.MustCompile(`^v1 ([0-9a-f]{64}) ([0-9a-f]{64}) {1,20}([0-9]{1,20}) {1,20}([0-9]{1,20})\n$`)
	buildIDRE   = regexp.MustCompile(`^!<arch>\n__\.PKGDEF[^\n]*\ngo object [^\n]*\nbuild id "([A-Za-z0-9_-]{20})/([A-Za-z0-9_-]{20})"\n`)
)

// An action is one entry of the go command's cache.
type action struct {
	id, output string // hex
	size       int64
}

// parseAction reads an index entry of the go command's cache.
func parseAction(name string, data []byte) (action, error) {
	m := actionRE.FindSubmatch(data)
	if m == nil || string(m[1]) != name {
		return action{}, errors.New("not an entry of the cache")
	}
	size, err := strconv.ParseInt(string(m[3]), 10, 64)
	if err != nil || size < 0 || size > maxShared {
		return action{}, errors.New("an entry of a size that is not shared")
	}
	return action{string(m[1]), string(m[2]), size}, nil
}

// checkOutput decides whether the content that an action names may be shared.
func checkOutput(a action, data []byte) error {
	if int64(len(data)) != a.size {
		return errors.New("another size than the entry says")
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.output {
		return errors.New("another hash than the entry says")
	}
	if !bytes.HasPrefix(data, []byte("!<arch>\n")) {
		for _, magic := range []string{"\x7fELF", "MZ", "\xcf\xfa\xed\xfe", "\xce\xfa\xed\xfe", "\x00asm"} {
			if bytes.HasPrefix(data, []byte(magic)) {
				return errors.New("a program, which is not shared")
			}
		}
		return nil
	}
	// A compiled package names the action that made it, and its own content.
	m := buildIDRE.FindSubmatch(data[:min(len(data), 1024)])
	if m == nil {
		return errors.New("a package without a build id")
	}
	key, err := hex.DecodeString(a.id)
	if err != nil || shortHash(key) != string(m[1]) {
		return errors.New("a package made by another action")
	}
	id := string(m[1]) + "/" + string(m[2])
	sum := sha256.Sum256(bytes.ReplaceAll(data, []byte(id), make([]byte, len(id))))
	if shortHash(sum[:]) != string(m[2]) {
		return errors.New("a package with another content than its build id says")
	}
	return nil
}

// shortHash is how build ids write a hash: its first 120 bits.
func shortHash(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum[:15]) }

// shareable returns the files of a build's own cache folder that other builds
// may use, by their path in it.
func shareable(private string) ([]string, error) {
	var files []string
	outputs := map[string]bool{}
	dirs, err := os.ReadDir(private)
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if !d.IsDir() || len(d.Name()) != 2 {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(private, d.Name()))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			m := cacheFileRE.FindStringSubmatch(e.Name())
			if m == nil || m[2] != "a" || !e.Type().IsRegular() || m[1][:2] != d.Name() {
				continue
			}
			name := filepath.Join(d.Name(), e.Name())
			a, err := readAction(filepath.Join(private, name), m[1])
			if err != nil {
				continue
			}
			out := filepath.Join(a.output[:2], a.output+"-d")
			fi, err := os.Lstat(filepath.Join(private, out))
			if err != nil || fi.Size() != a.size && fi.Mode().IsRegular() {
				continue
			}
			if fi.Mode().IsRegular() {
				data, err := os.ReadFile(filepath.Join(private, out))
				if err != nil {
					return nil, err
				}
				if checkOutput(a, data) != nil {
					continue
				}
				if !outputs[out] {
					outputs[out] = true
					files = append(files, out)
				}
			}
			files = append(files, name)
		}
	}
	return files, nil
}

func readAction(file, name string) (action, error) {
	fi, err := os.Lstat(file)
	if err != nil || fi.Size() > 1024 {
		return action{}, errors.New("not an entry of the cache")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return action{}, err
	}
	return parseAction(name, data)
}

// adopt moves checked files of a build's folder into the cache, outputs
// before the entries that name them.
func (c *stdCache) adopt(private string, files []string) error {
	mark := c.dir + dirtySuffix
	if err := durable.WriteFile(mark, nil, 0o644); err != nil {
		return err
	}
	c.mu.Lock()
	err := func() error {
		for _, kind := range []string{"-d", "-a"} {
			for _, name := range files {
				if name[len(name)-2:] != kind {
					continue
				}
				to := filepath.Join(c.dir, name)
				if _, err := os.Lstat(to); err == nil {
					continue
				}
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					return err
				}
				from := filepath.Join(private, name)
				if err := errors.Join(os.Chmod(from, 0o444), os.Rename(from, to)); err != nil {
					return err
				}
			}
		}
		return nil
	}()
	c.mu.Unlock()
	if err := errors.Join(err, durable.SyncTree(c.dir)); err != nil {
		return fmt.Errorf("sharing compiled packages: %w", err)
	}
	return os.Remove(mark)
}

// touch notes that the entries were used that a build has read through the
// links in its own folder. Before [stdCache.trim] that decides what stays; to
// miss one costs compiling it again.
func (c *stdCache) touch(private string) {
	links, err := filepath.Glob(filepath.Join(private, "??", "*-a"))
	if err != nil {
		return
	}
	now := time.Now()
	for _, link := range links {
		fi, err := os.Lstat(link)
		if err != nil || fi.Mode().Type() != fs.ModeSymlink || !wasRead(fi) {
			continue
		}
		rel, err := filepath.Rel(private, link)
		if err != nil {
			continue
		}
		_ = os.Chtimes(filepath.Join(c.dir, rel), now, now) // those of the standard library are not there
	}
}

// sizeAndCount returns what a cache holds.
func (c *stdCache) sizeAndCount() (size int64, count int) {
	_ = filepath.WalkDir(c.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if fi, err := d.Info(); err == nil {
			size += fi.Size()
			count++
		}
		return nil
	})
	return size, count
}
