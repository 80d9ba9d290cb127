//go:build unix && !linux

package supervisor

import (
	"net"

	"golang.org/x/sys/unix"
)

// listenPrivate makes a unix socket to which nobody but its owner can connect,
// from the first moment on. What else this program makes in that moment is
// private too: these systems have no other way.
func listenPrivate(name string) (net.Listener, error) {
	defer unix.Umask(unix.Umask(0o177))
	return net.Listen("unix", name)
}
