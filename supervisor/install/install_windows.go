package install

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

func chown(string, fs.FileInfo) error { return nil }

func freeSpace(dir string) (uint64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(p, &free, nil, nil)
	return free, err
}

// Writable returns why binaries can't be put beside the name, "" when that isn't known.
func (p Place) Writable() string { return "" }
