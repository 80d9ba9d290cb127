package notify

import (
	"os"

	"golang.org/x/sys/unix"
)

// sameSocket reports whether two descriptors are of one socket. Other kinds of
// files can be open several times in their own right.
func sameSocket(a, b *os.File) bool {
	var sa, sb unix.Stat_t
	if !fstat(a, &sa) || !fstat(b, &sb) {
		return false
	}
	return sa.Mode&unix.S_IFMT == unix.S_IFSOCK && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

func fstat(f *os.File, st *unix.Stat_t) bool {
	ok := false
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { ok = unix.Fstat(int(fd), st) == nil })
	return ok
}

// hungUp reports whether a descriptor's other end is gone.
func hungUp(f *os.File) bool {
	gone := false
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	_ = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return gone
}
