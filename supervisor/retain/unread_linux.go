package retain

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Lengths and places of the kernel's struct inet_diag_req_v2 and inet_diag_msg.
const (
	diagRequest = 56
	diagRQueue  = 56
)

// unread reports whether a connection to a port holds data that its process
// has not read, for example a request or the beginning of a TLS handshake. It
// asks the kernel over a socket of its own (sock_diag).
func unread(v6 bool, port uint16) (bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return false, err
	}
	ne := binary.NativeEndian
	req := make([]byte, unix.SizeofNlMsghdr+diagRequest)
	ne.PutUint32(req, uint32(len(req)))
	ne.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_INET
	if v6 {
		body[0] = unix.AF_INET6
	}
	body[1] = unix.IPPROTO_TCP
	ne.PutUint32(body[4:], 1<<unix.BPF_TCP_ESTABLISHED)
	binary.BigEndian.PutUint16(body[8:], port)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, err
		}
		found, done, err := unreadIn(buf[:n], port)
		if found || done || err != nil {
			return found, err
		}
	}
}

// unreadIn looks through one datagram of the kernel's answer.
func unreadIn(b []byte, port uint16) (found, done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(ne.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, false, errors.New("the kernel's answer is cut off")
		}
		msg := b[unix.SizeofNlMsghdr:size]
		switch ne.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return false, true, nil
		case unix.NLMSG_ERROR:
			if len(msg) >= 4 {
				if code := int32(ne.Uint32(msg)); code != 0 {
					return false, true, unix.Errno(-code)
				}
			}
			return false, true, nil
		default:
			if len(msg) >= diagRQueue+4 && binary.BigEndian.Uint16(msg[4:]) == port && ne.Uint32(msg[diagRQueue:]) > 0 {
				return true, false, nil
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, false, nil
}
