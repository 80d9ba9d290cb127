package retain

import (
	"encoding/binary"
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
