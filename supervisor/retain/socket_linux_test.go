package retain

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func sockaddr(a netip.AddrPort, family uint16) []byte {
	b := binary.NativeEndian.AppendUint16(nil, family)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	if family == unix.AF_INET {
		ip := a.Addr().As4()
		return append(append(b, ip[:]...), make([]byte, 8)...)
	}
	ip := a.Addr().As16()
	return append(append(append(b, 0, 0, 0, 0), ip[:]...), 0, 0, 0, 0)
}

func TestParseAddr(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:8080"), netip.MustParseAddrPort("[2001:db8::1]:443")
	for _, tc := range []struct {
		name string
		data []byte
		v6   bool
		want netip.AddrPort
		ok   bool
	}{
		{"IPv4", sockaddr(four, unix.AF_INET), false, four, true},
		{"IPv6", sockaddr(six, unix.AF_INET6), true, six, true},
		{"IPv6 without scope", sockaddr(six, unix.AF_INET6)[:24], true, six, true},
		{"IPv4 for an IPv6 socket", sockaddr(four, unix.AF_INET), true, netip.AddrPort{}, false},
		{"IPv6 for an IPv4 socket", sockaddr(six, unix.AF_INET6), false, netip.AddrPort{}, false},
		{"short", sockaddr(four, unix.AF_INET)[:15], false, netip.AddrPort{}, false},
		{"empty", nil, false, netip.AddrPort{}, false},
	} {
		if got, ok := parseAddr(tc.data, tc.v6); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %v, %v; want %v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
	zoned := sockaddr(netip.MustParseAddrPort("[fe80::1]:1"), unix.AF_INET6)
	binary.NativeEndian.PutUint32(zoned[24:], 3)
	if got, ok := parseAddr(zoned, true); !ok || got.Addr().Zone() != "3" {
		t.Errorf("with a scope: %v, %v", got, ok)
	}
}

// FuzzParseAddr: what a service has in its memory at the place of an address
// never breaks anything, and what is understood is told the same way by both
// representations.
func FuzzParseAddr(f *testing.F) {
	f.Add(sockaddr(netip.MustParseAddrPort("192.0.2.1:8080"), unix.AF_INET), false)
	f.Add(sockaddr(netip.MustParseAddrPort("[2001:db8::1]:443"), unix.AF_INET6), true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, data []byte, v6 bool) {
		a, ok := parseAddr(data, v6)
		if !ok {
			return
		}
		if a.Addr().Is6() != v6 {
			t.Fatalf("%x: %v; family of IPv6: %v", data, a, v6)
		}
		family := uint16(unix.AF_INET)
		if v6 {
			family = unix.AF_INET6
		}
		again, ok := parseAddr(sockaddr(a, family), v6)
		if !ok || again.Addr().WithZone("") != a.Addr().WithZone("") || again.Port() != a.Port() {
			t.Fatalf("%v is read back as %v", a, again)
		}
	})
}

// What a process hasn't accepted or read is seen from outside.
func TestUnread(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Log(err) // no IPv6 here
			continue
		}
		defer l.Close()
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		queued := func() (q bool) {
			if err := raw.Control(func(fd uintptr) { q = waiting(int(fd)) }); err != nil {
				t.Fatal(err)
			}
			return q
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		left := func() bool {
			more, err := unread(at.Addr().Is6(), at.Port())
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
				t.Skip("the kernel does not tell of sockets: ", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			return more
		}
		if queued() || left() {
			t.Error("something is there before anybody came")
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		until(t, "the connection is in the queue", queued)
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if queued() || left() {
			t.Error("an accepted, silent connection is taken for one that waits")
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		until(t, "the data is there", left)
		if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if left() {
			t.Error("what was read is taken for unread")
		}
	}
}

func FuzzUnread(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, uint16(80))
	f.Add([]byte{8, 0, 0, 0, 20, 0}, uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, port uint16) {
		if found, done, err := unreadIn(data, port); found && (done || err != nil) {
			t.Errorf("%v, %v, %v", found, done, err)
		}
	})
}

// A connection that comes while new ones are held off is accepted afterwards.
// The kernel may want a right for that, which the skipping tells.
func TestQuiet(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 5)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port)).String()
	if err := quiet(fd); err != nil {
		if unix.Geteuid() != 0 {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr) // the handshake's first half is let through
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := unix.Accept(fd); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("accepted while new connections are held off: %v", err)
	}
	loud(fd)
	if _, err := c.Write([]byte("x")); err != nil { // brings the handshake's end again
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000); n != 1 || err != nil {
		t.Fatalf("it does not come: %d, %v", n, err)
	}
	got, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(got)
}
