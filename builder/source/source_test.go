package source

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/dirhash"

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

// A zip that unpacks to more than a bound is not read on, nor one that nobody
// waits for any more.
func TestHashZip(t *testing.T) {
	name := filepath.Join(t.TempDir(), "zip")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for i := range 3 {
		w, err := z.Create(fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	want, err := dirhash.HashZip(name, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := hashZip(t.Context(), name, 300_000); got != want || err != nil {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if _, err := hashZip(t.Context(), name, 299_999); !errors.Is(err, httpget.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hashZip(ctx, name, 300_000); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
