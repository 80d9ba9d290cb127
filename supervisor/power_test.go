//go:build unix

package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
)

// A shadow is what a disk holds that keeps nothing but what was synced: the
// contents that files had when they were synced, and the names that folders had
// when they were.
type shadow struct {
	t     *testing.T
	dir   string // what is shadowed
	stash string // contents, as hard links

	mu      sync.Mutex
	stashed []string
	synced  map[fileID]string             // inode to a name in the stash
	names   map[string]map[string]entry   // folder to what is in it
	images  []map[string]map[string]entry // at each moment when power may be lost
	labels  []string
}

type fileID struct{ dev, ino uint64 }

type entry struct {
	dir  bool
	link string // target of a symlink
	file fileID
	mode fs.FileMode
}

func newShadow(t *testing.T, dir string) *shadow {
	s := &shadow{t: t, dir: dir, stash: t.TempDir(), synced: map[fileID]string{}, names: map[string]map[string]entry{}}
	// What is there at the beginning has been there for long.
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			s.syncDir(name)
		case d.Type().IsRegular():
			s.syncFile(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shadow) watch(step, name string) {
	if !strings.HasPrefix(name, s.dir+string(filepath.Separator)) && name != s.dir {
		return // another test's
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(step + " " + filepath.Base(name)) // before the step counts
	switch step {
	case "sync":
		s.syncFile(name)
	case "syncdir":
		s.syncDir(name)
	}
	s.lose("after " + step + " " + filepath.Base(name))
}

func (s *shadow) syncFile(name string) {
	id, ok := idOf(name)
	if !ok {
		return
	}
	// Every content is written once, under a temporary name: the inode is the content.
	stashed := filepath.Join(s.stash, fmt.Sprint(len(s.stashed)))
	s.stashed = append(s.stashed, stashed)
	if err := link(name, stashed); err != nil {
		s.t.Error(err)
	}
	s.synced[id] = stashed
}

func (s *shadow) syncDir(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		s.t.Error(err)
		return
	}
	now := map[string]entry{}
	for _, d := range list {
		name := filepath.Join(dir, d.Name())
		e := entry{dir: d.IsDir()}
		e.link, _ = os.Readlink(name)
		if fi, err := os.Lstat(name); err == nil {
			e.mode = fi.Mode()
		}
		e.file, _ = idOf(name)
		now[d.Name()] = e
	}
	s.names[dir] = now
}

// lose notes what would be left if power were lost now.
func (s *shadow) lose(label string) {
	image := map[string]map[string]entry{}
	for d, names := range s.names {
		image[d] = names
	}
	s.images, s.labels = append(s.images, image), append(s.labels, label)
}

// restore makes the folder what is left of it.
func (s *shadow) restore(image map[string]map[string]entry) {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, d := range list {
		if err := os.RemoveAll(filepath.Join(s.dir, d.Name())); err != nil {
			s.t.Fatal(err)
		}
	}
	s.put(s.dir, image)
}

func (s *shadow) put(dir string, image map[string]map[string]entry) {
	for name, e := range image[dir] {
		file := filepath.Join(dir, name)
		var err error
		switch {
		case e.dir:
			err = os.MkdirAll(file, 0o700)
			s.put(file, image)
		case e.link != "":
			err = os.Symlink(e.link, file)
		case e.mode.IsRegular() && s.synced[e.file] != "":
			err = link(s.synced[e.file], file)
		case e.mode.IsRegular():
			err = os.WriteFile(file, nil, e.mode.Perm()) // the name was synced and the content was not
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			s.t.Error(err)
		}
	}
}

// Power is lost at every step of an update, and with it everything that was not
// synced. After each, one complete version runs, and the update succeeds in the end.
func testPowerLoss(t *testing.T) {
	needLinux(t)
	t.Parallel()
	b := newBench(t, "")
	b.cfg.Updates.BackoffMin = 0
	b.cfg.Health.Probation = config.Duration(50 * time.Millisecond)
	if err := os.MkdirAll(b.cfg.State, 0o700); err != nil {
		t.Fatal(err)
	}
	b.syncs = true
	s := newShadow(t, b.dir)
	durable.Watch(s.watch)
	b.publish("v1.0.1")
	b.start()
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
	b.stop()
	durable.Watch(nil)
	if len(s.images) < 40 {
		t.Fatalf("%d steps were seen: %q", len(s.images), s.labels)
	}
	done := map[string]bool{}
	for i, image := range s.images {
		// Moments that leave the same are one.
		key := fmt.Sprint(image)
		if done[key] {
			continue
		}
		done[key] = true
		s.restore(image)
		b.start()
		st := b.until(fmt.Sprintf("update after power was lost at step %d, %s", i, s.labels[i]), func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
		if len(st.Skips) != 0 || st.Paused || st.Code != CodeCurrent {
			t.Errorf("step %d, %s: %s %q, skips %+v", i, s.labels[i], st.Code, st.Summary, st.Skips)
		}
		if got := b.target(); got != "v1.0.1" {
			t.Errorf("step %d, %s: the link points at %s", i, s.labels[i], got)
		}
		b.stop()
	}
	t.Logf("%d steps, %d different disks", len(s.images), len(done))
}
