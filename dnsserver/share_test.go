package dnsserver

import (
	"testing"
	"time"
)

// A worker as a model: packets of 3 µs, at a rate or as soon as the last ones are
// answered, and signatures of 40 µs whenever they are allowed. Answers that are
// ready must keep their rate.
func TestSignShare(t *testing.T) {
	const packet, sign, batch = 3 * time.Microsecond, 40 * time.Microsecond, 64
	for _, tc := range []struct {
		name   string
		rate   float64 // packets a second
		window int     // packets on their way at any time, beside those
		ready  bool    // none of the window's packets needs a signature, nor of the others every tenth
		answer int     // at least so many answers of the window in a second
		least  int     // signatures in that second
		most   int
	}{
		{name: "signatures only", least: 24000, most: 25001},
		{name: "missing names", rate: 70000, least: 18000, most: 20000},
		{name: "more missing names than can be read", rate: 1e6, least: 14000, most: 16000},
		{name: "little load", rate: 20000, ready: true, least: 18000, most: 25000},
		{name: "some load", rate: 70000, ready: true, least: 12000, most: 20000},
		{name: "much load", rate: 200000, ready: true, least: 1000, most: 10000},
		{name: "all that it can", rate: 330000, ready: true, least: 150, most: 700},
		{name: "more than it can", rate: 1e6, ready: true, least: 150, most: 700},
		{name: "askers that wait for answers", window: 400, ready: true, answer: 270000, least: 150, most: 1000},
		{name: "askers that wait, and a flood", rate: 50000, window: 400, ready: true, answer: 225000, least: 150, most: 1000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s signShare
			start := time.Unix(1, 0)
			now := start
			done, back, signed, longest := 0.0, 0, 0, time.Duration(0)
			type sent struct {
				at time.Time // when the asker has the answer and asks again
				n  int
			}
			wait, away := tc.window, []sent(nil)
			for now.Sub(start) < time.Second {
				arrived := tc.rate*now.Sub(start).Seconds() - done
				if backlog := 2000.0; arrived > backlog { // what the socket's buffer can't hold is lost
					done += arrived - backlog
					arrived = backlog
				}
				for len(away) > 0 && !away[0].at.After(now) {
					wait += away[0].n
					away = away[1:]
				}
				own := min(wait, batch-min(int(arrived), batch/4))
				n := min(int(arrived), batch-own)
				if n+own == 0 && s.left <= 0 && s.last != (time.Time{}) {
					now = now.Add(50 * time.Microsecond) // until a packet comes, or time to sign
				}
				begin := now
				now = now.Add(time.Duration(n+own)*packet + time.Microsecond)
				done += float64(n)
				back += own
				wait -= own
				if own > 0 {
					away = append(away, sent{now.Add(100 * time.Microsecond), own})
				}
				s.packets(begin, now, tc.ready && n+own > 0, n+own == batch)
				at := now
				for i := 0; i < maxInRow && s.left > 0; i++ {
					now = now.Add(sign)
					s.signed(sign)
					signed++
				}
				longest = max(longest, now.Sub(at))
				if room := s.room(); room < fewWait || room > waitSlots {
					t.Fatalf("room for %d to wait", room)
				}
			}
			if signed < tc.least || signed > tc.most {
				t.Errorf("%d signatures; want %d to %d", signed, tc.least, tc.most)
			}
			if back < tc.answer {
				t.Errorf("%d answers; want %d", back, tc.answer)
			}
			if longest > 10*sign {
				t.Errorf("%s without a look for packets", longest)
			}
		})
	}
}

// What may wait follows the share of the time that signatures have.
func TestSignRoom(t *testing.T) {
	for _, tc := range []struct {
		load float64
		want int
	}{{0, 1024}, {.4, 512}, {.76, 51}, {.78, 25}, {.8, 16}, {1, 16}} {
		if s := (signShare{load: tc.load}); s.room() != tc.want {
			t.Errorf("load %v: room for %d to wait; want %d", tc.load, s.room(), tc.want)
		}
	}
}
