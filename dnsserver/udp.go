package dnsserver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// maxPacket is the largest packet that is read over UDP. Queries are short;
// what is longer is answered as malformed.
const maxPacket = 16 << 10

// serveSimple answers packets one at a time, on every system.
func (s *Server) serveSimple(c *net.UDPConn) {
	defer c.Close()
	in, out := make([]byte, maxPacket+1), make([]byte, 0, udpSize)
	var q query
	for {
		n, addr, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // for example, an ICMP error about an earlier answer
		}
		now := s.h.now()
		client := Client{netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), UDP}
		resp, ok := s.h.respond(out[:0], in[:min(n, maxPacket)], client, &q, now, atOnce)
		if !ok {
			p := pending{packet: append([]byte(nil), in[:n]...), client: client, send: func(b []byte) {
				if len(b) > 0 {
					c.WriteToUDPAddrPort(b, addr)
				}
			}}
			if s.later(p) {
				continue
			}
			resp = s.h.appendTruncated(out[:0], &q, client, now, nil)
		}
		if len(resp) > 0 {
			// A lost answer is asked for again.
			_, _ = c.WriteToUDPAddrPort(resp, addr)
			s.h.stat.took(time.Since(now), 1)
		}
	}
}
