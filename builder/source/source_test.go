package source

import (
	"archive/zip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.org/upkeep/internal/httpget"
)

// A zip with very many files is refused before they are listed.
func TestCheckEntries(t *testing.T) {
	for _, tc := range []struct {
		files int
		ok    bool
	}{{1, true}, {maxEntries, true}, {maxEntries + 1, false}} {
		name := filepath.Join(t.TempDir(), "zip")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		z := zip.NewWriter(f)
		for i := range tc.files {
			if _, err := z.CreateHeader(&zip.FileHeader{Name: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if err := checkEntries(name); (err == nil) != tc.ok || err != nil && !errors.Is(err, httpget.ErrTooLarge) {
			t.Errorf("%d files: %v", tc.files, err)
		}
	}
}
