package supervisor

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenPrivate makes a unix socket to which nobody but its owner can connect,
// from the first moment on. Its file has the mode that the socket has when it is
// bound; a umask would be one for everything else that this program makes, and
// starts, meanwhile.
func listenPrivate(name string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if errControl := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); errControl != nil {
			return errControl
		}
		return err
	}}
	return lc.Listen(context.Background(), "unix", name)
}
