package dnsserver

import "golang.org/x/sys/unix"

// bigBuffer asks for a receive buffer above the system's limit, which needs
// CAP_NET_ADMIN. Without it the limit is net.core.rmem_max.
func bigBuffer(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) }
