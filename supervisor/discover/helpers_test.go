package discover

import (
	"os"
	"path/filepath"
	"testing"

	"example.org/upkeep/supervisor/discover/zonetest"
)

const (
	testZone = zonetest.ZoneName
	hello    = zonetest.Module
)

var epoch = zonetest.Epoch

func readFile(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writeFiles replaces all files of a folder by a text.
func writeFiles(t testing.TB, dir, text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if err := os.WriteFile(filepath.Join(dir, e.Name()), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
