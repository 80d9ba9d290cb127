//go:build !linux

package builder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// syncTree makes everything in a folder durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
