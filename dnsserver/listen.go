package dnsserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ListenConfig says how to listen.
type ListenConfig struct {
	Workers    int           // UDP sockets for each address, 0 is one for each CPU
	Idle       time.Duration // after which a TCP connection without a query is closed
	Conns      int           // TCP connections in all
	ConnsPerIP int           // TCP connections from one address (for IPv6, from one /64)
}

// DefaultListenConfig has the limits for a server on the public internet.
func DefaultListenConfig() ListenConfig {
	return ListenConfig{Idle: 10 * time.Second, Conns: 2000, ConnsPerIP: 200}
}

// A Server answers on sockets.
type Server struct {
	h       *Handler
	cfg     ListenConfig
	wg      sync.WaitGroup // those who read queries
	ctx     context.Context
	stop    context.CancelFunc
	sign    chan pending
	swg     sync.WaitGroup // those who sign
	idle    chan struct{}  // closed when nothing more will have to be signed
	conns   *connLimit
	streams *connLimit // queries under way on connections that carry many at once

	mu   sync.Mutex
	open map[netip.AddrPort]context.CancelFunc // what Listen opened
}

// fill puts the defaults where nothing is set.
func (cfg *ListenConfig) fill() {
	def := DefaultListenConfig()
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Idle <= 0 {
		cfg.Idle = def.Idle
	}
	if cfg.Conns <= 0 {
		cfg.Conns = def.Conns
	}
	if cfg.ConnsPerIP <= 0 {
		cfg.ConnsPerIP = def.ConnsPerIP
	}
}

// NewServer makes a server without sockets.
func NewServer(h *Handler, cfg ListenConfig) *Server {
	cfg.fill()
	h.idle.Store(int64(cfg.Idle))
	s := &Server{h: h, cfg: cfg, open: map[netip.AddrPort]context.CancelFunc{}, sign: make(chan pending, signQueue), idle: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.conns, s.streams = newConnLimit(cfg.Conns, cfg.ConnsPerIP), newConnLimit(cfg.Conns, cfg.ConnsPerIP)
	for range runtime.GOMAXPROCS(0) {
		s.swg.Go(s.signer)
	}
	return s
}

// SetLimits takes other limits of connections. Those that are open stay; the
// number of workers is that of the start.
func (s *Server) SetLimits(cfg ListenConfig) {
	cfg.fill()
	s.h.idle.Store(int64(cfg.Idle))
	s.conns.set(cfg.Conns, cfg.ConnsPerIP)
	s.streams.set(cfg.Conns, cfg.ConnsPerIP)
}

// StopListening ends what Listen began at an address. Connections go on until
// they are idle.
func (s *Server) StopListening(addr netip.AddrPort) {
	s.mu.Lock()
	stop := s.open[addr]
	delete(s.open, addr)
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Close ends the server: it takes no more queries, and returns when those at
// hand have been answered.
func (s *Server) Close() {
	s.stop()
	s.wg.Wait()
	close(s.idle)
	s.swg.Wait()
}

// ListenError says which address could not be used.
type ListenError struct {
	Network string
	Addr    string
	Err     error
}

func (e *ListenError) Error() string {
	if errors.Is(e.Err, syscall.EADDRINUSE) {
		return fmt.Sprintf("%s port %s is in use by another program", e.Network, e.Addr)
	}
	if errors.Is(e.Err, syscall.EACCES) {
		return fmt.Sprintf("no permission to use %s port %s: ports below 1024 need a capability or a socket from systemd", e.Network, e.Addr)
	}
	return fmt.Sprintf("listening on %s %s: %v", e.Network, e.Addr, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Family is the network for listening at host:port, "tcp" or "udp" of the kind that
// the address is: without a 4 behind it 0.0.0.0 would stand for IPv6 too.
func Family(network, addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil && host == "0.0.0.0" {
		return network + "4"
	}
	return network
}

// family is Family, but [::] is for IPv6 alone when 0.0.0.0 is open already.
func (s *Server) family(network, host, port string) string {
	n, err := strconv.ParseUint(port, 10, 16)
	if err == nil && host == "::" {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n))] != nil {
			return network + "6"
		}
	}
	return Family(network, net.JoinHostPort(host, port))
}

// Listen answers on an address over UDP and TCP, and returns the address it
// has: with port 0 the system chooses one that is free for both. [::] stands for
// IPv4 too, unless 0.0.0.0 was opened with the same port before.
func (s *Server) Listen(addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, &ListenError{"dns", addr, err}
	}
	tries := 1
	if port == "0" {
		tries = 20
	}
	for {
		tries--
		got, err := s.listenBoth(host, port)
		if err == nil && host != "0.0.0.0" && got.Addr() == netip.IPv4Unspecified() {
			got = s.addIPv6(got)
		}
		if err == nil || tries == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return got, err
		}
	}
}

// addIPv6 opens [::] beside 0.0.0.0, and returns it as one for both: where the
// loopback interface has no IPv4 address, package net takes 0.0.0.0 alone. Without
// IPv6 it does nothing.
func (s *Server) addIPv6(four netip.AddrPort) netip.AddrPort {
	six, err := s.listenBoth("::", strconv.Itoa(int(four.Port())))
	if err != nil {
		return four
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stop, stopSix := s.open[four], s.open[six]
	delete(s.open, four)
	s.open[six] = func() {
		stop()
		stopSix()
	}
	return six
}

func (s *Server) listenBoth(host, port string) (netip.AddrPort, error) {
	// TCP first: it never shares its port, so it notices another program.
	tcp, err := net.Listen(s.family("tcp", host, port), net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, &ListenError{"TCP", net.JoinHostPort(host, port), err}
	}
	got := tcp.Addr().(*net.TCPAddr).AddrPort()
	number := strconv.Itoa(int(got.Port()))
	fixed, network := net.JoinHostPort(host, number), s.family("udp", host, number)
	// A socket that shares nothing finds out whether the UDP port is free.
	probe, err := net.ListenPacket(network, fixed)
	if err != nil {
		tcp.Close()
		return netip.AddrPort{}, &ListenError{"UDP", fixed, err}
	}
	probe.Close()
	var udp []*net.UDPConn
	for range s.cfg.Workers {
		lc := net.ListenConfig{Control: sharePort}
		c, err := lc.ListenPacket(s.ctx, network, fixed)
		if err != nil {
			if len(udp) > 0 && !canShare {
				break
			}
			tcp.Close()
			for _, c := range udp {
				c.Close()
			}
			return netip.AddrPort{}, &ListenError{"UDP", fixed, err}
		}
		udp = append(udp, c.(*net.UDPConn))
		if !canShare {
			break
		}
	}
	ctx, stop := context.WithCancel(s.ctx)
	for _, c := range udp {
		s.startUDP(ctx, c)
	}
	closeStream := s.ServeStream(tcp, TCP)
	addr := netip.AddrPortFrom(got.Addr().Unmap(), got.Port())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[addr] = func() {
		closeStream()
		stop()
	}
	return addr, nil
}

// startUDP answers on a socket until ctx ends, at the latest with the server.
func (s *Server) startUDP(ctx context.Context, c *net.UDPConn) {
	s.wg.Go(func() { s.serveUDP(ctx, c) })
	context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
}

// signQueue is how many queries can wait for a signature. At some 20,000
// signatures a second and core that is a wait of a few milliseconds.
const signQueue = 256

// signPause is the time between two signatures for streams.
const signPause = 20 * time.Microsecond

// A pending query needs a signature before it can be answered.
type pending struct {
	packet []byte
	client Client
	send   func([]byte)
	since  time.Time
}

// signer answers pending queries, out of the way of those that need no signature.
func (s *Server) signer() {
	var q query
	buf := make([]byte, 0, 4096)
	for {
		select {
		case <-s.idle:
			return
		case p := <-s.sign:
			out, _ := s.h.respond(buf[:0], p.packet, p.client, &q, s.h.now(), queued)
			p.send(out)
			s.h.stat.took(time.Since(p.since), 1)
			// Leave the processor, so that the scheduler looks for packets: those
			// that are already signed go first.
			time.Sleep(signPause)
		}
	}
}

// later queues a query, and reports false when there are too many.
func (s *Server) later(p pending) bool {
	p.since = time.Now()
	select {
	case s.sign <- p:
		return true
	default:
		s.h.stat.overload.Add(1)
		return false
	}
}

// Answer answers one query that came over a transport other than the server's
// own, after waiting for a signature if it must. Nothing is returned for what
// is no query.
func (s *Server) Answer(ctx context.Context, packet []byte, c Client) []byte {
	start := time.Now()
	if out, ok := s.h.Respond(nil, packet, c, false); ok {
		s.h.stat.took(time.Since(start), 1)
		return out
	}
	done := make(chan []byte, 1)
	select {
	case s.sign <- pending{packet: packet, client: c, since: start, send: func(b []byte) { done <- bytes.Clone(b) }}:
	case <-ctx.Done():
		return nil
	case <-s.ctx.Done():
		return nil
	}
	select {
	case out := <-done:
		return out
	case <-s.ctx.Done():
		return nil
	}
}

// EnterStream counts a query on a connection of HTTPS or QUIC, where many can be
// under way and each holds its packet: there may be as many of them in all, and
// from one address, as connections. When there is room, leave is to be called when
// it has been answered.
func (s *Server) EnterStream(c Client) (leave func(), ok bool) {
	if !s.streams.enter(c.Addr.Addr()) {
		s.h.stat.refusedConns.Add(1)
		return nil, false
	}
	return func() { s.streams.leave(c.Addr.Addr()) }, true
}

// Enter counts a connection of another transport against the limits. When
// there is room for it, leave is to be called at its end.
func (s *Server) Enter(c Client) (leave func(), ok bool) {
	if !s.conns.enter(c.Addr.Addr()) {
		s.h.stat.refusedConns.Add(1)
		return nil, false
	}
	s.h.stat.openConns.Add(1)
	return func() {
		s.conns.leave(c.Addr.Addr())
		s.h.stat.openConns.Add(-1)
	}, true
}
