//go:build linux || freebsd || openbsd || netbsd || darwin

package dnsserver

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// canShare says whether several sockets can divide the packets to one port
// among them. On other systems than Linux the last socket would get them all.
const canShare = runtime.GOOS == "linux"

// sharePort lets further sockets of this process use the port, and asks for
// buffers that hold a burst.
func sharePort(network, address string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if canShare {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		// The system may give less; that is no error. With the right to, more
		// than its limit can be had.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		bigBuffer(int(fd))
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	})
	if cerr != nil {
		return cerr
	}
	return err
}
