//go:build unix

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// chown gives the file the owner that fi tells of, when it isn't already so.
func chown(file string, fi fs.FileInfo) error {
	want, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	now, err := os.Stat(file)
	if err != nil {
		return err
	}
	if have, ok := now.Sys().(*syscall.Stat_t); ok && have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	err = os.Chown(file, int(want.Uid), int(want.Gid))
	// Without the right to give files away the new one stays ours, and the
	// service's user can execute it all the same when the mode says so.
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return nil
	}
	return err
}

// Writable returns why binaries can't be put beside the name, "" when they can.
func (p Place) Writable() string {
	if err := unix.Access(p.Dir, unix.W_OK); err != nil {
		return fmt.Sprintf("the folder %s can't be written: %v", p.Dir, err)
	}
	return ""
}
