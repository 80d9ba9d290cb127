package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"example.org/upkeep/builder/toolchain"
	"example.org/upkeep/internal/durable"
)

// A stdCache holds the compiled standard library for one toolchain and target.
// Only source of the verified toolchain is ever compiled into it. A build sees
// it read-only; the folder that a build writes to has one symbolic link for
// each of its files, so nothing that a build does reaches another build.
type stdCache struct {
	dir string
	mu  sync.RWMutex // held for writing while packages are added
}

// stdCaches gives out the caches below one folder.
type stdCaches struct {
	dir string
	mu  sync.Mutex
	all map[string]*stdCache
}

func (c *stdCaches) get(tc toolchain.Toolchain, t toolchain.Target, paths string) (*stdCache, error) {
	sum := sha256.Sum256([]byte(tc.Sum + "\n" + t.String() + "\n" + paths))
	dir := filepath.Join(c.dir, tc.Version+"-"+t.GOOS+"-"+t.GOARCH+"-"+hex.EncodeToString(sum[:8]))
	c.mu.Lock()
	defer c.mu.Unlock()
	if sc, ok := c.all[dir]; ok {
		return sc, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache of the standard library: %w", err)
	}
	sc := &stdCache{dir: dir}
	c.all[dir] = sc
	return sc, nil
}

// layer links every file of the cache into a build's own cache folder. seenAt
// is the name of the cache's folder for the commands of the build.
func (c *stdCache) layer(private, seenAt string) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := os.MkdirAll(private, 0o777); err != nil {
		return fmt.Errorf("making a build's cache: %w", err)
	}
	// The go command would remove entries as unused by the age of the linked files.
	if err := os.WriteFile(filepath.Join(private, "trim.txt"), []byte(strconv.FormatInt(time.Now().Unix(), 10)), 0o666); err != nil {
		return fmt.Errorf("making a build's cache: %w", err)
	}
	for i := range 256 {
		sub := hex.EncodeToString([]byte{byte(i)})
		if err := os.MkdirAll(filepath.Join(private, sub), 0o777); err != nil {
			return fmt.Errorf("making a build's cache: %w", err)
		}
		entries, err := os.ReadDir(filepath.Join(c.dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the cache of the standard library: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			err := os.Symlink(path.Join(seenAt, sub, e.Name()), filepath.Join(private, sub, e.Name()))
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("making a build's cache: %w", err)
			}
		}
	}
	return nil
}

// fill adds packages. compile gets the folder of the cache and runs the go
// command on it. When the machine stops meanwhile, files can be left with the
// right length and wrong content: a mark beside the folder makes the next
// start throw it away.
func (c *stdCache) fill(compile func(dir string) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	mark := c.dir + dirtySuffix
	if err := durable.WriteFile(mark, nil, 0o644); err != nil {
		return err
	}
	err := compile(c.dir)
	if syncErr := durable.SyncTree(c.dir); syncErr != nil {
		return errors.Join(err, fmt.Errorf("storing the compiled standard library: %w", syncErr))
	}
	// Also after an error: what the go command put there is complete.
	return errors.Join(err, os.Remove(mark))
}

const dirtySuffix = ".dirty"

// clean removes caches that were being filled when the server stopped, and
// those larger than max bytes (0: no limit).
func (c *stdCaches) clean(max int64) error {
	marks, err := filepath.Glob(filepath.Join(c.dir, "*"+dirtySuffix))
	if err != nil {
		return err
	}
	if max > 0 {
		dirs, err := filepath.Glob(filepath.Join(c.dir, "*"))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			sc := &stdCache{dir: dir}
			if size, count := sc.sizeAndCount(); size > max || count > maxSharedFiles {
				if err := os.RemoveAll(dir); err != nil {
					return fmt.Errorf("removing a full cache: %w", err)
				}
			}
		}
	}
	for _, mark := range marks {
		if err := os.RemoveAll(mark[:len(mark)-len(dirtySuffix)]); err != nil {
			return fmt.Errorf("removing an unfinished cache: %w", err)
		}
		if err := os.Remove(mark); err != nil {
			return fmt.Errorf("removing an unfinished cache: %w", err)
		}
	}
	return nil
}
