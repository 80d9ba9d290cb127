package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// ListenInherited answers on the sockets that systemd opened for this process
// (sd_listen_fds(3)): datagram sockets for UDP and stream sockets for TCP. So a
// program without privileges can have port 53.
func (s *Server) ListenInherited() ([]netip.AddrPort, error) {
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 || n > 64 || pid != os.Getpid() {
		return nil, errors.New("no sockets were passed by systemd: is the unit started by its .socket unit?")
	}
	const first = 3
	var addrs []netip.AddrPort
	for fd := first; fd < first+n; fd++ {
		a, err := s.listenFile(os.NewFile(uintptr(fd), "systemd socket "+strconv.Itoa(fd)))
		if err != nil {
			return nil, fmt.Errorf("socket %d of %d passed by systemd: %w", fd-first+1, n, err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// listenFile takes over one open socket.
func (s *Server) listenFile(f *os.File) (netip.AddrPort, error) {
	defer f.Close() // the socket is duplicated
	if l, err := net.FileListener(f); err == nil {
		tcp, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			l.Close()
			return netip.AddrPort{}, fmt.Errorf("%s is no TCP socket", l.Addr())
		}
		s.ServeStream(l, TCP)
		return tcp.AddrPort(), nil
	}
	var addr netip.AddrPort
	for range s.cfg.Workers {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return addr, err
		}
		udp, ok := c.(*net.UDPConn)
		if !ok {
			c.Close()
			return addr, fmt.Errorf("%s is no UDP socket", c.LocalAddr())
		}
		addr = udp.LocalAddr().(*net.UDPAddr).AddrPort()
		s.startUDP(s.ctx, udp)
	}
	return addr, nil
}
