package dnsserver

import "time"

// waitSlots is how many queries of a worker can wait for a signature: at some
// 20,000 signatures a second, that is a wait of 50 ms.
const waitSlots = 1024

// maxInRow is how many signatures are made between two looks for packets.
const maxInRow = 8

// A signShare divides a worker's time between answers that are ready, which come
// first, and signatures: what those answers leave, and a little when they leave
// nothing. While no answer is ready, signatures get all the time.
type signShare struct {
	last  time.Time     // of the last look for packets
	ready time.Time     // when an answer was ready last
	load  float64       // share of the time lately that ready answers need
	left  time.Duration // for signatures
	spent time.Duration // on signatures since the last look
}

const (
	leastShare = 0.01
	loadPeriod = 10 * time.Millisecond
	// reserve keeps some time free, so that a burst of packets finds it.
	reserve = 1.25
	// fewWait can wait for a signature even when there is no time for them.
	fewWait = 16
)

// packets notes a look for packets, which took from begin to end with what was
// done about them. Ready says that one of the answers was ready, and full that
// there may be more packets than could be read at once.
func (s *signShare) packets(begin, end time.Time, ready, full bool) {
	elapsed := min(end.Sub(s.last), time.Second)
	s.last = end
	if ready {
		s.ready = end
	}
	if elapsed <= 0 {
		return
	}
	busy := 0.0
	if end.Sub(s.ready) < loadPeriod {
		busy = float64(end.Sub(begin)) / float64(elapsed)
		if full { // what else was done meanwhile was too much
			busy = 1
		}
	}
	weight := min(float64(elapsed)/float64(loadPeriod), 1)
	s.load += weight * (busy - s.load)
	// No more is saved up than can be spent in a row.
	s.left = min(s.left+time.Duration(s.share()*float64(elapsed-s.spent)), maxInRow*50*time.Microsecond)
	s.spent = 0
}

// signed notes the time that a signature took. With all the time for signatures
// none of it is missed.
func (s *signShare) signed(d time.Duration) {
	s.spent += d
	s.left -= time.Duration((1 - s.share()) * float64(d))
}

func (s *signShare) share() float64 { return max(1-reserve*s.load, leastShare) }

// room is how many queries may wait for a signature: no more than get one soon.
func (s *signShare) room() int { return max(int(s.share()*waitSlots), fewWait) }
