//go:build !linux

package logtest

import "testing"

// SmallDisk is for Linux alone.
func SmallDisk(t *testing.T, size int64) (dir string, resize func(size int64)) {
	t.Skip("small file systems are made on Linux alone")
	return "", nil
}
