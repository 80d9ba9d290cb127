package index

import (
	"os"

	"golang.org/x/sys/windows"
)

// shrinkable lets a file of the map's size take the disk space of what is in
// it. A file system that can't do that takes the space.
func shrinkable(f *os.File) {
	var n uint32
	_ = windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
}
