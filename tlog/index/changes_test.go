package index_test

import (
	"maps"
	"path/filepath"
	"testing"

	"example.org/upkeep/tlog/index"
)

// A list of all modules, kept up to date by the changes, stays what Each says.
func TestChanges(t *testing.T) {
	srv, url := serve(t, small, 3000)
	c := client(t, srv, url)
	s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
	follow(t, s, c)
	all := func() map[string]bool {
		t.Helper()
		m := map[string]bool{}
		err := s.Each(func(path string, released bool) error {
			m[path] = released
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	_, mark, ok := s.Changes(0)
	if ok {
		t.Fatal("changes are known before anybody asked")
	}
	have := all()
	if len(have) == 0 {
		t.Fatal("no modules")
	}
	changed := 0
	for size := int64(3000); size <= 6000; size += 500 {
		srv.SetSize(size)
		follow(t, s, c)
		paths, next, ok := s.Changes(mark)
		if !ok {
			t.Fatalf("at %d records the changes since the last time are not known", size)
		}
		mark = next
		changed += len(paths)
		for _, path := range paths {
			m, ok, err := s.Module(path)
			if err != nil || !ok {
				t.Fatalf("%s changed and is not there: %v", path, err)
			}
			have[path] = len(m.Majors) > 0
		}
		if !maps.Equal(have, all()) {
			t.Fatalf("at %d records: %d modules by the changes; %d are there", size, len(have), len(all()))
		}
	}
	if changed == 0 {
		t.Error("nothing changed")
	}
	if _, _, ok := s.Changes(mark - 1); ok {
		t.Error("changes that were forgotten are known")
	}
	if paths, _, ok := s.Changes(mark); !ok || len(paths) > 0 {
		t.Errorf("no change: %q, %v", paths, ok)
	}
}
