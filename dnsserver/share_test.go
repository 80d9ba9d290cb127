package dnsserver

import (
	"testing"
	"time"
)

// A worker as a model: packets of 3 µs at a rate, signatures of 40 µs whenever
// they are allowed. Ready answers must keep their rate.
func TestSignShare(t *testing.T) {
	const packet, sign = 3 * time.Microsecond, 40 * time.Microsecond
	for _, tc := range []struct {
		rate  float64 // packets a second
		least int     // signatures in that second
		most  int
	}{
		{0, 24000, 25000}, {20000, 18000, 25000}, {70000, 12000, 20000}, {200000, 2000, 10000}, {330000, 500, 2000}, {1000000, 500, 2000},
	} {
		var s signShare
		now := time.Unix(1, 0)
		start := now
		arrived, answered, signed, longest := 0.0, 0, 0, time.Duration(0)
		for now.Sub(start) < time.Second {
			arrived = tc.rate*now.Sub(start).Seconds() - float64(answered)
			if backlog := 2000.0; arrived > backlog { // what the socket's buffer can't hold is lost
				answered += int(arrived - backlog)
				arrived = backlog
			}
			n := min(int(arrived), 64)
			begin := now
			now = now.Add(time.Duration(n)*packet + time.Microsecond)
			answered += n
			s.packets(begin, now)
			at := now
			for i := 0; i < maxInRow && (n == 0 || s.left > 0); i++ {
				now = now.Add(sign)
				s.left -= sign
				signed++
			}
			longest = max(longest, now.Sub(at))
		}
		if signed < tc.least || signed > tc.most {
			t.Errorf("%.0f packets/s: %d signatures; want %d to %d", tc.rate, signed, tc.least, tc.most)
		}
		if longest > 10*sign {
			t.Errorf("%.0f packets/s: %s without a look for packets", tc.rate, longest)
		}
	}
}
