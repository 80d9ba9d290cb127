package dnsserver

import "testing"

func TestGCPercent(t *testing.T) {
	const mb = 1 << 20
	for _, tc := range []struct {
		live uint64
		want int
	}{{0, 100}, {mb, 100}, {16 * mb, 100}, {40 * mb, 40}, {60 * mb, 30}, {300 * mb, 30}, {384 * mb, 25}, {960 * mb, 10}} {
		if got := gcPercent(tc.live); got != tc.want {
			t.Errorf("%d bytes in use: %d percent; want %d", tc.live, got, tc.want)
		}
	}
}
