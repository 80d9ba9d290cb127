package main

import (
	"path/filepath"
	"testing"

	"example.org/upkeep/supervisor/discover"
)

func TestShareCache(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name string
		in   discover.Config
		dir  string
		want string
	}{
		{"there", discover.Config{Zone: "l.example."}, dir, dir},
		{"a program's own record", discover.Config{Updates: "example.org"}, dir, dir},
		{"not there", discover.Config{Zone: "l.example."}, filepath.Join(dir, "nothing"), ""},
		{"chosen already", discover.Config{Zone: "l.example.", Cache: "mine"}, dir, "mine"},
		{"nothing to share", discover.Config{}, dir, ""},
	} {
		if got := shareCache(tc.in, tc.dir); got.Cache != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got.Cache, tc.want)
		}
	}
}
