package retain

import (
	"fmt"
	"net/netip"
)

// A Key is what a socket is bound to. Two binds with equal keys can use the
// same socket.
type Key struct {
	V6       bool // of the family IPv6
	Stream   bool // else datagrams
	Protocol int
	V6Only   bool
	Shared   bool   // SO_REUSEPORT: of sockets on one address all have it, or none
	UID      uint32 // who made it: others of the service's tree don't get it
	Addr     netip.AddrPort
}

// Protocol numbers. Go's listeners use Multipath TCP where the kernel has it.
const (
	plainTCP  = 6
	multipath = 262
)

// Network is the address's network as Go calls it.
func (k Key) Network() string {
	switch {
	case !k.Stream:
		return "udp"
	case k.Protocol == multipath:
		return "mptcp"
	}
	return "tcp"
}

func (k Key) String() string { return fmt.Sprintf("%s %s", k.Network(), k.Addr) }

// conflicts reports whether a kept socket keeps another one from being bound.
func (k Key) conflicts(o Key) bool {
	if k.Stream != o.Stream || k.Addr.Port() != o.Addr.Port() {
		return false
	}
	a, b := k.Addr.Addr(), o.Addr.Addr()
	if k.V6 == o.V6 {
		return a == b || a.IsUnspecified() || b.IsUnspecified()
	}
	six, four := k, b
	if o.V6 {
		six, four = o, a
	}
	if six.V6Only {
		return false
	}
	addr := six.Addr.Addr()
	if addr.Is4In6() {
		addr = addr.Unmap()
		return addr == four || addr.IsUnspecified() || four.IsUnspecified()
	}
	return addr.IsUnspecified()
}

// view is a kept socket as decide sees it.
type view struct {
	Key
	Open bool // a process of the service has it open
}

// decide says what becomes of a bind call: the index of the kept socket to give
// instead, or -1; the kept sockets that are in its way; and whether the service's
// own socket is to be kept.
func decide(want Key, have []view) (give int, drop []int, keep bool) {
	if want.Addr.Port() == 0 {
		return -1, nil, false // the kernel chooses: nobody can know it beforehand
	}
	for i, v := range have {
		if v.Key != want {
			continue
		}
		if v.Open {
			// A second socket on the address (SO_REUSEPORT), or an error of the
			// service that it is to see.
			return -1, nil, false
		}
		return i, nil, false
	}
	for i, v := range have {
		if !v.Open && v.Key.conflicts(want) {
			drop = append(drop, i)
		}
	}
	return -1, drop, len(have)-len(drop) < maxSockets
}
