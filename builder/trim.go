package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Downloaded modules and compiled dependencies are removed while no build runs:
// [Service.Run] starts none until the running ones have ended, when something
// takes more than its space.

// A cached is one module version in the module cache, or what is left of a
// download that did not end.
type cached struct {
	dir   string   // its unpacked files, if it has them
	files []string // its other files, as they are to be removed
	size  int64
	used  time.Time
}

// modulesIn lists the modules of a module cache.
func modulesIn(cache string) ([]cached, error) {
	var list []cached
	unpacked := map[string]bool{} // zips
	err := filepath.WalkDir(cache, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() || name == cache {
			return nil
		}
		rel, err := filepath.Rel(cache, name)
		if err != nil {
			return err
		}
		if rel == "cache" {
			return fs.SkipDir
		}
		path, version, ok := strings.Cut(filepath.ToSlash(rel), "@")
		if !ok {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		zip := filepath.Join(cache, "cache", "download", filepath.FromSlash(path), "@v", version+".zip")
		c := cached{dir: name, used: fi.ModTime(), files: zipFiles(zip), size: sizeOf(name)}
		if fi, err := os.Stat(zip); err == nil {
			c.size += fi.Size()
		}
		unpacked[zip] = true
		list = append(list, c)
		return fs.SkipDir
	})
	if err != nil {
		return nil, fmt.Errorf("looking through the module cache: %w", err)
	}
	err = filepath.WalkDir(filepath.Join(cache, "cache", "download"), func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nothing was downloaded, or it goes meanwhile
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		zip := strings.HasSuffix(name, ".zip")
		if unpacked[name] || !zip && !strings.HasSuffix(name, ".tmp") {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return nil // renamed meanwhile
		}
		c := cached{files: []string{name}, size: fi.Size(), used: fi.ModTime()}
		if zip {
			c.files = zipFiles(name)
		}
		list = append(list, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking through the module cache: %w", err)
	}
	return list, nil
}

// zipFiles returns the files of a module's zip, the hash first: without it the go
// command does not take the zip as verified.
func zipFiles(zip string) []string { return []string{zip + "hash", zip} }

// trimModules removes the modules that were not used for longest, until the
// others take at most max bytes. No build may run. What goes is downloaded and
// verified again when it is needed.
func trimModules(cache string, max int64) (removed int, err error) {
	list, err := modulesIn(cache)
	if err != nil {
		return 0, err
	}
	total := totalOf(list)
	slices.SortFunc(list, func(a, b cached) int { return a.used.Compare(b.used) })
	for _, c := range list {
		if total <= max {
			break
		}
		for _, name := range c.files {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return removed, fmt.Errorf("removing a module that is not used: %w", err)
			}
		}
		if c.dir != "" {
			if err := removeAll(c.dir); err != nil {
				return removed, fmt.Errorf("removing a module that is not used: %w", err)
			}
		}
		total -= c.size
		removed++
	}
	return removed, nil
}

func totalOf(list []cached) (total int64) {
	for _, c := range list {
		total += c.size
	}
	return total
}

// allowance returns how many of total bytes may stay: some less than the quota
// (0: there is none), so that the next builds need not wait again, and when less
// than floor is free, what leaves twice that.
func allowance(total, quota, free, floor int64) int64 {
	keep := total
	if quota > 0 {
		keep = min(keep, quota/10*8)
	}
	if free < floor {
		keep = min(keep, total-(2*floor-free))
	}
	return max(keep, 0)
}

// trim removes the entries that were not used for longest, and what only they
// name, until at most max bytes and count files are left. No build may use the cache.
func (c *stdCache) trim(max int64, count int) (removed int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size, files := c.sizeAndCount()
	if size <= max && files <= count {
		return 0, nil
	}
	type entry struct {
		name   string
		output string
		used   time.Time
	}
	var entries []entry
	named := map[string]int{} // entries that name an output
	names, err := filepath.Glob(filepath.Join(c.dir, "??", "*-a"))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		e := entry{name: name}
		if a, err := readAction(name, strings.TrimSuffix(filepath.Base(name), "-a")); err == nil {
			e.output = filepath.Join(c.dir, a.output[:2], a.output+"-d")
			named[e.output]++
		}
		if fi, err := os.Stat(name); err == nil {
			e.used = fi.ModTime()
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.used.Compare(b.used) })
	remove := func(name string) error {
		fi, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = os.Remove(name)
		}
		if err != nil {
			return fmt.Errorf("removing compiled packages: %w", err)
		}
		size -= fi.Size()
		files--
		removed++
		return nil
	}
	for _, e := range entries {
		if size <= max && files <= count {
			break
		}
		if err := remove(e.name); err != nil {
			return removed, err
		}
		if named[e.output]--; e.output != "" && named[e.output] == 0 {
			if err := remove(e.output); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

// list returns the caches in use since the start.
func (c *stdCaches) list() []*stdCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.all))
}

// measure asks for trimming when modules or compiled dependencies take more
// than their space, or a disk is nearly full.
func (s *Service) measure() {
	over, err := s.diskLow(int64(s.cfg.DiskFree) << 20)
	if err != nil {
		s.logger.Error("measuring the disk", "err", err)
	}
	if s.cfg.ModQuota > 0 {
		list, err := modulesIn(s.modCache)
		if err != nil {
			s.logger.Error("measuring the module cache", "err", err)
		}
		over = over || totalOf(list) > int64(s.cfg.ModQuota)<<20
	}
	if s.deps != nil {
		for _, c := range s.deps.list() {
			size, count := c.sizeAndCount()
			over = over || size > int64(s.cfg.Share)<<20 || count > maxSharedFiles
		}
	}
	if over {
		s.askTrim()
	}
}

// askTrim makes Run trim as soon as the builds that run have ended.
func (s *Service) askTrim() {
	s.trimDue.Store(true)
	s.queue.poke()
}

// trim gives space back; no build runs.
func (s *Service) trim() {
	floor := int64(s.cfg.DiskFree) << 20
	if err := s.trimModules(floor); err != nil {
		s.logger.Error("removing modules that are not used", "err", err)
	}
	if s.deps != nil {
		for _, c := range s.deps.list() {
			size, count := c.sizeAndCount()
			max, maxCount := int64(s.cfg.Share)<<20/2, maxSharedFiles/2
			if free, err := diskFree(c.dir); err == nil && free < floor {
				max, maxCount = 0, 0
			} else if size <= int64(s.cfg.Share)<<20 && count <= maxSharedFiles {
				continue
			}
			if n, err := c.trim(max, maxCount); err != nil {
				s.logger.Error("removing compiled dependencies", "err", err)
			} else {
				s.logger.Info("removed compiled dependencies that are not used", "folder", filepath.Base(c.dir), "files", n)
			}
		}
	}
	if low, err := s.diskLow(floor); low && err == nil {
		s.logger.Error("too little disk space is free, and nothing is left that is downloaded again when it is needed; no build starts: make room, or set quota to remove binaries", "dir", s.dir, "disk_free", s.cfg.DiskFree)
	}
}

func (s *Service) trimModules(floor int64) error {
	list, err := modulesIn(s.modCache)
	if err != nil {
		return err
	}
	free, err := diskFree(s.modCache)
	if err != nil {
		return fmt.Errorf("asking for free disk space: %w", err)
	}
	total := totalOf(list)
	keep := allowance(total, int64(s.cfg.ModQuota)<<20, free, floor)
	if keep == total {
		return nil
	}
	n, err := trimModules(s.modCache, keep)
	if n > 0 {
		s.logger.Info("removed modules that are not used", "count", n)
	}
	return err
}
