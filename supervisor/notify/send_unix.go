//go:build unix

package notify

import (
	"os"

	"golang.org/x/sys/unix"
)

// sendFiles sends a message with descriptors (package net can't, to a
// connected datagram socket). The files stay the caller's.
func sendFiles(state string, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return err
		}
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	unix.CloseOnExec(s)
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	for {
		err := unix.Sendmsg(s, []byte(state), unix.UnixRights(fds...), to, 0)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}
