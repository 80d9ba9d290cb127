package retain

import (
	"net/netip"
	"slices"
	"testing"
)

func key(network, addr string) Key {
	a := netip.MustParseAddrPort(addr)
	k := Key{V6: a.Addr().Is6(), Stream: network != "udp", Addr: a}
	switch network {
	case "tcp":
		k.Protocol = plainTCP
	case "mptcp":
		k.Protocol = multipath
	case "udp":
		k.Protocol = 17
	}
	return k
}

func only6(k Key) Key { k.V6Only = true; return k }

func shared(k Key) Key { k.Shared = true; return k }

func by(uid uint32, k Key) Key { k.UID = uid; return k }

func TestDecide(t *testing.T) {
	closed := func(k Key) view { return view{k, false} }
	open := func(k Key) view { return view{k, true} }
	local, wild := key("tcp", "127.0.0.1:80"), key("tcp", "0.0.0.0:80")
	six := key("tcp", "[::]:80")
	for _, tc := range []struct {
		name string
		want Key
		have []view
		give int
		drop []int
		keep bool
	}{
		{"first", local, nil, -1, nil, true},
		{"same", local, []view{closed(six), closed(local)}, 1, nil, false},
		{"port chosen by the kernel", key("tcp", "127.0.0.1:0"), []view{closed(local)}, -1, nil, false},
		{"still open", local, []view{open(local)}, -1, nil, false},
		{"other port", local, []view{closed(key("tcp", "127.0.0.1:81"))}, -1, nil, true},
		{"other transport", local, []view{closed(key("udp", "127.0.0.1:80"))}, -1, nil, true},
		{"other protocol on the port", local, []view{closed(key("mptcp", "127.0.0.1:80"))}, -1, []int{0}, true},
		{"another user's", local, []view{closed(by(7, local))}, -1, []int{0}, true},
		{"shared, and was not", shared(local), []view{closed(local)}, -1, []int{0}, true},
		{"not shared, and was", local, []view{closed(shared(local))}, -1, []int{0}, true},
		{"second of those that share", shared(local), []view{open(shared(local))}, -1, nil, false},
		{"other address", local, []view{closed(key("tcp", "127.0.0.2:80"))}, -1, nil, true},
		{"from wildcard", local, []view{closed(wild)}, -1, []int{0}, true},
		{"to wildcard", wild, []view{closed(local), closed(key("tcp", "127.0.0.2:80"))}, -1, []int{0, 1}, true},
		{"to dual stack", six, []view{closed(local), closed(key("tcp", "[::1]:80"))}, -1, []int{0, 1}, true},
		{"to IPv6 alone", only6(six), []view{closed(local)}, -1, nil, true},
		{"from dual stack", local, []view{closed(six)}, -1, []int{0}, true},
		{"from IPv6 alone", wild, []view{closed(only6(six))}, -1, nil, true},
		{"v6only changed", only6(six), []view{closed(six)}, -1, []int{0}, true},
		{"mapped", key("tcp", "[::ffff:127.0.0.1]:80"), []view{closed(local)}, -1, []int{0}, true},
		{"mapped elsewhere", key("tcp", "[::ffff:127.0.0.2]:80"), []view{closed(local)}, -1, nil, true},
		{"IPv6 address and IPv4", key("tcp", "[::1]:80"), []view{closed(local)}, -1, nil, true},
		{"in the way and open", local, []view{open(wild)}, -1, nil, true},
		{"link-local zones", key("tcp", "[fe80::1%1]:80"), []view{closed(key("tcp", "[fe80::1%2]:80"))}, -1, nil, true},
		{"too many", local, slices.Repeat([]view{closed(key("tcp", "127.0.0.1:81"))}, maxSockets), -1, nil, false},
	} {
		give, drop, keep := decide(tc.want, tc.have)
		if give != tc.give || !slices.Equal(drop, tc.drop) || keep != tc.keep {
			t.Errorf("%s: give %d, drop %v, keep %v; want %d, %v, %v", tc.name, give, drop, keep, tc.give, tc.drop, tc.keep)
		}
		for _, v := range tc.have {
			if v.Key.conflicts(tc.want) != tc.want.conflicts(v.Key) {
				t.Errorf("%s: %v and %v disagree on their conflict", tc.name, v.Key, tc.want)
			}
		}
	}
}
