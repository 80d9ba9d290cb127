package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// SyncTree makes everything in a folder durable.
func SyncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
