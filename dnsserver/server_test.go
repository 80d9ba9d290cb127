package dnsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const moxName = "mox.mjl_2d._.github.com.v0." + testZone

func testServer(t testing.TB, cfg ListenConfig, addr string) (*Server, netip.AddrPort) {
	t.Helper()
	s := NewServer(testHandler(t, testConfig(), testIndex()), cfg)
	t.Cleanup(s.Close)
	got, err := s.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	return s, got
}

func TestListen(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		_, addr := testServer(t, ListenConfig{Workers: 2}, listen)
		hosts := []string{addr.Addr().String()}
		if addr.Addr().IsUnspecified() {
			// The answer must come from the address that was asked, which is
			// not the one that routing would choose.
			hosts = []string{"127.0.0.1", "127.0.0.99"}
			if strings.HasPrefix(listen, "[") {
				hosts = append(hosts, "::1")
			}
		}
		for _, host := range hosts {
			for _, network := range []string{"udp", "tcp"} {
				c := dns.Client{Net: network, Timeout: time.Minute}
				// First with a signature to be made, then from the cache.
				for range 2 {
					r, _, err := c.Exchange(question(moxName, dns.TypeTXT, true), net.JoinHostPort(host, fmt.Sprint(addr.Port())))
					if err != nil || texts(r) != "v=v0.0.15 t=66fa7e15" {
						t.Errorf("%s, %s of %s: %v, %v", network, host, listen, r, err)
					}
				}
			}
		}
	}
}

func TestPortInUse(t *testing.T) {
	_, addr := testServer(t, ListenConfig{}, "127.0.0.1:0")
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{})
	defer s.Close()
	_, err := s.Listen(addr.String())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(addr.Port())) {
		t.Errorf("%v", err)
	}
	// UDP alone in use, also by sockets that share it.
	var free string
	var udp net.PacketConn
	for udp == nil {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free = tcp.Addr().String()
		lc := net.ListenConfig{Control: sharePort}
		if udp, err = lc.ListenPacket(t.Context(), "udp", free); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		tcp.Close()
	}
	defer udp.Close()
	if _, err := s.Listen(free); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "UDP port "+free) {
		t.Errorf("%v", err)
	}
}

// A thousand different names at once: all are answered over UDP, at the latest
// after the answer that says to use TCP.
func TestBurst(t *testing.T) {
	s, addr := testServer(t, ListenConfig{Workers: 2}, "127.0.0.1:0")
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 1000
	seen, truncated := map[uint16]bool{}, uint64(0)
	buf := make([]byte, 4096)
	for tries := 0; len(seen) < n; tries++ {
		if tries == 120 {
			t.Fatalf("%d of %d answers", len(seen), n)
		}
		for i := range n {
			if seen[uint16(i)] {
				continue
			}
			m := question(fmt.Sprintf("x%d._.example.org.v0.%s", i, testZone), dns.TypeTXT, true)
			m.Id = uint16(i)
			packet, _ := m.Pack()
			if _, err := c.Write(packet); err != nil {
				t.Fatal(err)
			}
		}
		// This side's buffer can be too small for all: then ask again, as a
		// resolver does.
		c.SetReadDeadline(time.Now().Add(time.Second))
		for len(seen) < n {
			size, err := c.Read(buf)
			if err != nil {
				break
			}
			var r dns.Msg
			if err := r.Unpack(buf[:size]); err != nil {
				t.Fatal(err)
			}
			if r.Truncated {
				truncated++
			} else if len(r.Ns) != 4 {
				t.Fatalf("%v", &r)
			}
			seen[r.Id] = true
		}
	}
	if counted := s.h.stat.truncated.Load(); counted < truncated {
		t.Errorf("%d answers said to use TCP; %d were counted", truncated, counted)
	}
	if s.h.stat.overload.Load() == 0 {
		t.Log("the queue was never full")
	}
}

func tcpQuery(m *dns.Msg) []byte {
	packet, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

func readTCP(t *testing.T, c net.Conn) *dns.Msg {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	r := new(dns.Msg)
	if err := r.Unpack(buf); err != nil {
		t.Fatal(err)
	}
	return r
}

// Many queries in one write, answered in any order; then one in single bytes.
func TestPipelining(t *testing.T) {
	_, addr := testServer(t, ListenConfig{}, "127.0.0.1:0")
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 500
	var all []byte
	for i := range n {
		m := question(fmt.Sprintf("x%d.%s", i%7*1000+i, testZone), dns.TypeTXT, i%2 == 0)
		if i%3 == 0 {
			m.Question[0].Name = moxName
		}
		m.Id = uint16(i)
		all = append(all, tcpQuery(m)...)
	}
	go c.Write(all)
	seen := map[uint16]bool{}
	for range n {
		r := readTCP(t, c)
		if seen[r.Id] || r.Id >= n {
			t.Fatalf("answer %d twice", r.Id)
		}
		seen[r.Id] = true
	}
	for _, b := range tcpQuery(question(moxName, dns.TypeTXT, true)) {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(readTCP(t, c)); got != "v=v0.0.15 t=66fa7e15" {
		t.Errorf("%q", got)
	}
}

// A query of the greatest size is answered, not dropped.
func TestLargeTCPQuery(t *testing.T) {
	_, addr := testServer(t, ListenConfig{}, "127.0.0.1:0")
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := question(moxName, dns.TypeTXT, true)
	plain, _ := m.Pack()
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 65535-len(plain)-4)})
	q := tcpQuery(m)
	if len(q) != 2+65535 {
		t.Fatalf("%d bytes", len(q))
	}
	for range 2 {
		if _, err := c.Write(q); err != nil {
			t.Fatal(err)
		}
		if got := texts(readTCP(t, c)); got != "v=v0.0.15 t=66fa7e15" {
			t.Errorf("%q", got)
		}
	}
}

func TestTCPLimits(t *testing.T) {
	s, addr := testServer(t, ListenConfig{Idle: time.Hour, ConnsPerIP: 3, Conns: 4}, "127.0.0.1:0")
	closed := func(c net.Conn) bool {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	}
	for i := range 4 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i < 3 {
			c.Write(tcpQuery(question(moxName, dns.TypeTXT, true)))
			readTCP(t, c)
		} else if !closed(c) {
			t.Error("the fourth connection of one address stays open")
		}
	}
	if s.h.stat.refusedConns.Load() != 1 {
		t.Errorf("%d connections were counted as refused", s.h.stat.refusedConns.Load())
	}
	_, addr = testServer(t, ListenConfig{Idle: 200 * time.Millisecond}, "127.0.0.1:0")
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !closed(c) {
		t.Error("an idle connection stays open")
	}
	// What asks nothing ends the connection.
	_, addr = testServer(t, ListenConfig{Idle: time.Hour}, "127.0.0.1:0")
	c, err = net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(bytes.Repeat([]byte{0, 0}, 10))
	if !closed(c) {
		t.Error("a message of no bytes leaves the connection open")
	}
}

// Close ends with clients connected, long before they would be shown out.
func TestClose(t *testing.T) {
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{Idle: time.Hour})
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(tcpQuery(question(moxName, dns.TypeTXT, true)))
	readTCP(t, c)
	// And with queries that still wait for a signature.
	for i := range 500 {
		c.Write(tcpQuery(question(fmt.Sprintf("x%d.%s", i, testZone), dns.TypeTXT, true)))
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(2 * time.Minute):
		t.Error("the server does not close")
	}
}

// Sockets that another process opened.
func TestInherited(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no systemd on Windows")
	}
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{Workers: 2})
	defer s.Close()
	var l net.Listener
	var u net.PacketConn
	for u == nil { // a port that is free for both
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if u, err = net.ListenPacket("udp", l.Addr().String()); err != nil {
			l.Close()
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatal(err)
			}
		}
	}
	for _, f := range []interface{ File() (*os.File, error) }{l.(*net.TCPListener), u.(*net.UDPConn)} {
		file, err := f.File()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.listenFile(file); err != nil || got.String() != l.Addr().String() {
			t.Fatalf("%v, %v", got, err)
		}
	}
	l.Close()
	u.Close()
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: time.Minute}
		if r, _, err := c.Exchange(question(moxName, dns.TypeTXT, true), l.Addr().String()); err != nil || texts(r) == "" {
			t.Errorf("%s: %v, %v", network, r, err)
		}
	}
	if _, err := s.ListenInherited(); err == nil {
		t.Error("without systemd: no error")
	}
}

// 0.0.0.0 is IPv4 alone, so that [::] can be listed beside it.
func TestListenBothWildcards(t *testing.T) {
	var s *Server
	var six netip.AddrPort
	var port string
	for range 20 { // what is free for IPv4 may be taken for IPv6
		var four netip.AddrPort
		s, four = testServer(t, ListenConfig{Workers: 2}, "0.0.0.0:0")
		port = fmt.Sprint(four.Port())
		var err error
		if six, err = s.Listen(net.JoinHostPort("::", port)); err == nil {
			break
		} else if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	if !six.IsValid() {
		t.Fatal("both wildcards can't be had with one port")
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, network := range []string{"udp", "tcp"} {
			c := dns.Client{Net: network, Timeout: time.Minute}
			if r, _, err := c.Exchange(question(moxName, dns.TypeTXT, true), net.JoinHostPort(host, port)); err != nil || texts(r) == "" {
				t.Errorf("%s, %s: %v, %v", network, host, r, err)
			}
		}
	}
	s.StopListening(six)
	c := dns.Client{Net: "tcp", Timeout: time.Minute}
	if r, _, err := c.Exchange(question(moxName, dns.TypeTXT, true), net.JoinHostPort("127.0.0.1", port)); err != nil || texts(r) == "" {
		t.Errorf("IPv4 after IPv6 was closed: %v, %v", r, err)
	}
}
