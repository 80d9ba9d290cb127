// Package doq answers DNS queries over dedicated QUIC connections (RFC 9250).
//
// It trusts nothing that comes over a connection: connections are limited by
// the server's own limits, and so are queries under way; streams and their bytes
// also by QUIC's flow control. Each stream carries one query. There are no files.
package doq

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"example.org/upkeep/dnsserver"
)

// Error codes of RFC 9250, section 4.3.
const (
	noError       = 0x0
	internalError = 0x1
	protocolError = 0x2
	excessiveLoad = 0x4
)

// Limits of one connection.
const (
	maxStreams = 100
	idle       = 30 * time.Second
	streamTime = 10 * time.Second
)

// Serve answers on a UDP socket until ctx ends. The certificate comes from
// conf, to which the protocol's name is added.
func Serve(ctx context.Context, srv *dnsserver.Server, conn net.PacketConn, conf *tls.Config) error {
	conf = conf.Clone()
	conf.NextProtos, conf.MinVersion = []string{"doq"}, tls.VersionTLS13
	tr := &quic.Transport{Conn: conn}
	defer tr.Close()
	l, err := tr.Listen(conf, &quic.Config{
		MaxIdleTimeout: idle, HandshakeIdleTimeout: 5 * time.Second,
		MaxIncomingStreams: maxStreams, MaxIncomingUniStreams: -1,
		InitialStreamReceiveWindow: 8 << 10, MaxStreamReceiveWindow: 128 << 10,
		InitialConnectionReceiveWindow: 64 << 10, MaxConnectionReceiveWindow: 256 << 10,
	})
	if err != nil {
		return fmt.Errorf("listening for QUIC: %w", err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting QUIC connections: %w", err)
		}
		wg.Go(func() { serveConn(ctx, srv, c) })
	}
}

func serveConn(ctx context.Context, srv *dnsserver.Server, c *quic.Conn) {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		c.CloseWithError(internalError, "")
		return
	}
	client := dnsserver.Client{Addr: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), Transport: dnsserver.QUIC}
	leave, ok := srv.Enter(client)
	if !ok {
		c.CloseWithError(excessiveLoad, "too many connections")
		return
	}
	defer leave()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			c.CloseWithError(noError, "")
			return
		}
		wg.Go(func() {
			if err := serveStream(ctx, srv, s, client); errors.Is(err, errProtocol) {
				c.CloseWithError(protocolError, err.Error())
			}
		})
	}
}

var errProtocol = errors.New("protocol error")

// serveStream reads one query, answers it and ends the stream.
func serveStream(ctx context.Context, srv *dnsserver.Server, s *quic.Stream, client dnsserver.Client) error {
	leave, ok := srv.EnterStream(client)
	if !ok {
		s.CancelRead(excessiveLoad)
		s.CancelWrite(excessiveLoad)
		return nil
	}
	defer leave()
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(streamTime)); err != nil {
		return err
	}
	var length [2]byte
	if _, err := io.ReadFull(s, length[:]); err != nil {
		return fmt.Errorf("%w: the stream ended in its length", errProtocol)
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(s, packet); err != nil {
		return fmt.Errorf("%w: the stream ended in its query", errProtocol)
	}
	if n, err := s.Read(length[:1]); n > 0 || err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one query in a stream", errProtocol)
	}
	if len(packet) < 2 || packet[0] != 0 || packet[1] != 0 {
		return fmt.Errorf("%w: the message's ID is not zero", errProtocol)
	}
	if dnsserver.AsksKeepalive(packet) {
		return fmt.Errorf("%w: the TCP keepalive option over QUIC", errProtocol)
	}
	out := srv.Answer(ctx, packet, client)
	if len(out) == 0 {
		return fmt.Errorf("%w: the message is no query", errProtocol)
	}
	_, err := s.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(out)), uint16(len(out))), out...))
	return err
}
