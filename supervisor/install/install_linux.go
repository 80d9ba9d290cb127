package install

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// copyAttributes takes over the extended attributes that describe how a file is
// to be treated. File capabilities are bound to the file they were given to and
// are not taken over; see [Capabilities].
func copyAttributes(file, old string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(old, buf)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("taking over extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.capability" || strings.HasPrefix(name, "security.ima") || strings.HasPrefix(name, "security.evm") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(old, name, value)
		if err != nil {
			continue // it may be gone, or not be ours to read
		}
		err = unix.Setxattr(file, name, value[:n], 0)
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("taking over the extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// Capabilities reports whether a file has capabilities, which a new binary
// will not have.
func Capabilities(file string) bool {
	n, err := unix.Getxattr(file, "security.capability", nil)
	return err == nil && n > 0
}

func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
