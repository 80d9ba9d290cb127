package retain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// keyOf describes a socket that is not bound yet; ok is false for families that
// aren't kept.
func keyOf(fd int) (k Key, ok bool, err error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return k, false, err
	}
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return k, false, nil
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return k, false, err
	}
	if typ != unix.SOCK_STREAM && typ != unix.SOCK_DGRAM {
		return k, false, nil
	}
	k.V6, k.Stream = domain == unix.AF_INET6, typ == unix.SOCK_STREAM
	if k.Protocol, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil {
		return k, false, err
	}
	if k.V6 {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return k, false, err
		}
		k.V6Only = only != 0
	}
	k.Shared = option(fd, unix.SO_REUSEPORT)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return k, false, err
	}
	k.UID = st.Uid
	return k, true, nil
}

// parseAddr reads a struct sockaddr; ok is false for what isn't an address of
// the family.
func parseAddr(b []byte, v6 bool) (a netip.AddrPort, ok bool) {
	if len(b) < 2 {
		return a, false
	}
	family := binary.NativeEndian.Uint16(b)
	switch {
	case !v6 && family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case v6 && family == unix.AF_INET6 && len(b) >= 24: // older programs leave the scope out
		addr := netip.AddrFrom16([16]byte(b[8:24]))
		if len(b) >= unix.SizeofSockaddrInet6 {
			if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 {
				addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
			}
		}
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])), true
	}
	return a, false
}

// boundTo returns what a socket is really bound to; the port is 0 when it isn't.
func boundTo(fd int) (Key, error) {
	k, ok, err := keyOf(fd)
	if err != nil {
		return k, err
	}
	if !ok {
		return k, errors.New("not a socket that is kept")
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return k, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		k.Addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		k.Addr = netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return k, nil
}

// serves reports whether a socket is a listening stream or a bound datagram
// socket that isn't connected, and what it is bound to.
func serves(fd int) (Key, bool) {
	k, err := boundTo(fd)
	if err != nil || k.Addr.Port() == 0 {
		return k, false
	}
	if k.Stream {
		listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return k, err == nil && listening != 0
	}
	_, err = unix.Getpeername(fd)
	return k, errors.Is(err, unix.ENOTCONN)
}

// option reads an option of the socket level that is on or off.
func option(fd, name int) bool {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
	return err == nil && v != 0
}

func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// hasOpen reports whether a process has a socket open. hint is where it was
// last seen; the number is returned.
func hasOpen(pid int, inode uint64, hint int) (bool, int) {
	want := fmt.Sprintf("socket:[%d]", inode)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	is := func(n string) bool {
		target, err := os.Readlink(filepath.Join(dir, n))
		return err == nil && target == want
	}
	if hint >= 0 && is(strconv.Itoa(hint)) {
		return true, hint
	}
	d, err := os.Open(dir)
	if err != nil {
		return false, hint // it has ended
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		if is(n) {
			fd, _ := strconv.Atoi(n)
			return true, fd
		}
	}
	return false, hint
}

// waiting reports whether connections of a listening TCP socket wait to be accepted.
func waiting(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.Unacked > 0 // of a listening socket the queue's length
}

// synOnly lets a listening TCP socket see the first packet of a handshake and
// nothing else: the client is answered, and its connection is complete only
// when the filter is gone.
var synOnly = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // flags of the TCP header
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jf: 1}, // SYN without ACK
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// quiet attaches synOnly. A socket with a filter of the service's own is left alone.
func quiet(fd int) error {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER); err == nil && n > 0 {
		return errors.New("the service has a filter of its own on it")
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(synOnly)), Filter: &synOnly[0]})
	if errors.Is(err, unix.EPERM) {
		return errors.New("the kernel wants CAP_NET_ADMIN for holding them off")
	}
	return err
}

// loud takes the filter away.
func loud(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // there may be none
}
