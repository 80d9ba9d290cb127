//go:build unix

package notify

import (
	"os"

	"golang.org/x/sys/unix"
)

// rightsOf is the control message that passes files.
func rightsOf(files []*os.File) ([]byte, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		// The caller's files stay open until the message is sent.
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return nil, err
		}
	}
	return unix.UnixRights(fds...), nil
}
