//go:build linux && (amd64 || arm64)

package dnsserver

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many packets one system call moves.
const batch = 64

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2) on 64-bit systems.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   uint32
}

const (
	nameSpace    = 28 // sockaddr_in6
	controlSpace = 64 // one IP_PKTINFO or IPV6_PKTINFO message
)

// Queries that need a signature first wait in a queue of their worker, which
// makes some signatures after each batch: so answers that are ready never wait
// for more than a few signatures, and never for the scheduler. Longer queries
// than waitPacket are told to use TCP.
const waitPacket = 512

// A waiter is a query that waits for a signature.
type waiter struct {
	packet  [waitPacket]byte
	name    [nameSpace]byte
	control [controlSpace]byte
	n       int // length of the packet
	nameLen uint32
	ctlLen  int
	client  Client
	since   time.Time
}

// A udpWorker reads and answers packets of one socket, many with each system
// call. Everything it needs is allocated once.
type udpWorker struct {
	s    *Server
	ctx  context.Context
	conn *net.UDPConn
	raw  syscall.RawConn
	wild bool // asked at any address: answers must leave from that one

	in, out           [batch]mmsghdr
	inVec, outVec     [batch]unix.Iovec
	names             [batch][nameSpace]byte
	controls          [batch][controlSpace]byte
	packets, messages [batch][]byte
	got, sent, ready  int
	q                 query
	errno             syscall.Errno

	queue       []waiter // a ring
	first, wait int      // the oldest, and how many there are
	share       signShare
	timed       bool // the socket has a deadline, so that time for signatures comes without packets
}

func (s *Server) serveUDP(ctx context.Context, c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		s.serveSimple(c)
		return
	}
	defer c.Close()
	w := &udpWorker{s: s, ctx: ctx, conn: c, raw: raw}
	w.wild = c.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
	if w.wild {
		var oerr error
		err := raw.Control(func(fd uintptr) {
			if c.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
				oerr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			} else {
				oerr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			}
		})
		if err != nil || oerr != nil {
			s.h.log.Warn("answers may leave from another address than the one asked: list the addresses instead of a wildcard", "err", errors.Join(err, oerr))
		}
	}
	for i := range batch {
		w.packets[i] = make([]byte, maxPacket)
		w.messages[i] = make([]byte, 0, udpSize+64)
		w.inVec[i].Base = &w.packets[i][0]
		w.inVec[i].SetLen(maxPacket)
		w.in[i].hdr.Name = &w.names[i][0]
		w.in[i].hdr.Iov = &w.inVec[i]
		w.in[i].hdr.SetIovlen(1)
		w.out[i].hdr.Iov = &w.outVec[i]
		w.out[i].hdr.SetIovlen(1)
	}
	w.run()
}

func (w *udpWorker) run() {
	receive, send := w.receive, w.send // bound once: no allocation for each batch
	for {
		for i := range batch {
			w.in[i].hdr.Namelen = nameSpace
			if w.wild {
				w.in[i].hdr.Control = &w.controls[i][0]
				w.in[i].hdr.SetControllen(controlSpace)
			}
		}
		w.limitWait()
		if err := w.raw.Read(receive); err != nil {
			if w.ctx.Err() != nil || !w.timed || !errors.Is(err, os.ErrDeadlineExceeded) {
				return // closed, or the server ends
			}
			w.got, w.errno = 0, 0
		}
		if w.errno != 0 {
			continue // for example, an ICMP error about an earlier answer
		}
		now := w.s.h.now()
		begin := time.Now()
		w.ready = 0
		ready := false
		for i := range w.got {
			ready = w.answer(i, now) || ready
		}
		if w.flush(send) != nil {
			return
		}
		end := time.Now()
		if w.ready > 0 {
			w.s.h.stat.took(end.Sub(begin), w.ready)
		}
		w.share.packets(begin, end, ready, w.got == batch)
		if w.wait == 0 {
			continue
		}
		w.ready = 0
		for n := 0; n < maxInRow && w.wait > 0 && w.share.left > 0; n++ {
			next := w.signNext()
			w.share.signed(next.Sub(end))
			end = next
		}
		if w.flush(send) != nil {
			return
		}
	}
}

// limitWait bounds how long the worker waits for packets while queries wait for
// time to sign: as long as the system's timers allow.
func (w *udpWorker) limitWait() {
	need := w.wait > 0 && w.share.left <= 0
	if !need && !w.timed {
		return
	}
	var at time.Time // none
	if need {
		at = time.Now().Add(time.Millisecond)
	}
	w.timed = need
	w.conn.SetReadDeadline(at)
	if w.ctx.Err() != nil {
		w.conn.SetReadDeadline(time.Unix(1, 0)) // it was overwritten
	}
}

// flush sends the messages that are ready.
func (w *udpWorker) flush(send func(uintptr) bool) error {
	for w.sent = 0; w.sent < w.ready; {
		if err := w.raw.Write(send); err != nil {
			return err
		}
		if w.errno != 0 {
			w.sent++ // this one can't be sent: a lost answer is asked for again
		}
	}
	return nil
}

// receive reads a batch. With queries to sign for it does not wait for packets.
func (w *udpWorker) receive(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&w.in[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		w.got, w.errno = 0, 0
		return w.wait > 0 && w.share.left > 0
	}
	w.got, w.errno = int(n), errno
	return true
}

func (w *udpWorker) send(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.out[w.sent])), uintptr(w.ready-w.sent), unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return false
	}
	if w.errno = errno; errno == 0 {
		w.sent += int(n)
	}
	return true
}

// answer answers packet i, into the next place for sending. It reports whether
// the answer was ready, without a signature to make and not put off.
func (w *udpWorker) answer(i int, now time.Time) bool {
	in := &w.in[i]
	packet := w.packets[i][:in.n]
	client := Client{parseSockaddr(&w.names[i]), UDP}
	if !client.Addr.IsValid() {
		return false
	}
	if in.hdr.Flags&unix.MSG_TRUNC != 0 {
		// Longer than any query: what there is of it reads as malformed.
		packet = packet[:min(len(packet), maxPacket)]
	}
	how := atOnce
	full := w.wait >= w.share.room()
	if full {
		how = crowded
	}
	msg, ready := w.s.h.respond(w.messages[w.ready][:0], packet, client, &w.q, now, how)
	if !ready {
		if !full && len(packet) <= waitPacket {
			w.later(i, packet, client, now)
			return false
		}
		w.s.h.stat.overload.Add(1)
		msg = w.s.h.appendTruncated(w.messages[w.ready][:0], &w.q, client, now, nil)
	}
	if len(msg) == 0 {
		return false
	}
	var control []byte
	if w.wild && in.hdr.Flags&unix.MSG_CTRUNC == 0 {
		control = w.controls[i][:in.hdr.Controllen]
		clearInterface(control)
	}
	w.put(msg, &w.names[i], in.hdr.Namelen, control)
	return ready
}

// put makes a message the next to be sent.
func (w *udpWorker) put(msg []byte, name *[nameSpace]byte, nameLen uint32, control []byte) {
	w.messages[w.ready] = msg
	out := &w.out[w.ready]
	w.outVec[w.ready].Base = &msg[0]
	w.outVec[w.ready].SetLen(len(msg))
	out.hdr.Name, out.hdr.Namelen = &name[0], nameLen
	out.hdr.Control = nil
	out.hdr.SetControllen(len(control))
	if len(control) > 0 {
		out.hdr.Control = &control[0]
	}
	w.ready++
}

// later puts packet i into the queue, which is not full.
func (w *udpWorker) later(i int, packet []byte, client Client, now time.Time) {
	if w.queue == nil {
		w.queue = make([]waiter, waitSlots)
	}
	x := &w.queue[(w.first+w.wait)%waitSlots]
	w.wait++
	in := &w.in[i]
	x.n, x.client, x.since = copy(x.packet[:], packet), client, now
	x.name, x.nameLen = w.names[i], in.hdr.Namelen
	x.ctlLen = 0
	if w.wild && in.hdr.Flags&unix.MSG_CTRUNC == 0 {
		x.ctlLen = copy(x.control[:], w.controls[i][:in.hdr.Controllen])
		clearInterface(x.control[:x.ctlLen])
	}
}

// signNext answers the oldest query in the queue, and returns the time after that.
func (w *udpWorker) signNext() time.Time {
	x := &w.queue[w.first]
	w.first = (w.first + 1) % waitSlots
	w.wait--
	msg, _ := w.s.h.respond(w.messages[w.ready][:0], x.packet[:x.n], x.client, &w.q, w.s.h.now(), queued)
	end := time.Now()
	if len(msg) > 0 {
		w.put(msg, &x.name, x.nameLen, x.control[:x.ctlLen])
		w.s.h.stat.took(end.Sub(x.since), 1)
	}
	return end
}

// parseSockaddr reads a struct sockaddr_in or sockaddr_in6.
func parseSockaddr(b *[nameSpace]byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port)
	}
	return netip.AddrPort{}
}

// clearInterface lets routing choose the interface for an answer: only its
// source address matters. A link-local address needs its interface.
func clearInterface(control []byte) {
	if len(control) < unix.SizeofCmsghdr {
		return
	}
	level, typ := binary.NativeEndian.Uint32(control[8:]), binary.NativeEndian.Uint32(control[12:])
	data := control[unix.SizeofCmsghdr:]
	switch {
	case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(data) >= 12:
		clear(data[:4])
	case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= 20:
		if a := netip.AddrFrom16([16]byte(data[:16])); !a.IsLinkLocalUnicast() {
			clear(data[16:20])
		}
	}
}
