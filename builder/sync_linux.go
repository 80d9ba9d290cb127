package builder

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncTree makes everything in a folder durable.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
