package dnsserver

import "time"

// maxInRow is how many signatures are made between two looks for packets.
const maxInRow = 8

// A signShare divides a worker's time between packets, which come first, and
// signatures: what packets leave, and a little when they leave nothing.
type signShare struct {
	last time.Time
	load float64       // share of the time that packets took lately
	left time.Duration // for signatures
}

const (
	leastShare = 0.04
	loadPeriod = 10 * time.Millisecond
	// reserve keeps some time free, so that a burst of packets finds it.
	reserve = 1.25
)

// packets notes that a batch of packets was worked on between two times.
func (s *signShare) packets(begin, end time.Time) {
	elapsed := end.Sub(s.last)
	if s.last.IsZero() || elapsed > time.Second {
		elapsed = max(end.Sub(begin), time.Microsecond)
	}
	s.last = end
	if elapsed <= 0 {
		return
	}
	weight := min(float64(elapsed)/float64(loadPeriod), 1)
	s.load += weight * (float64(end.Sub(begin))/float64(elapsed) - s.load)
	share := max(1-reserve*s.load, leastShare)
	// No more is saved up than can be spent in a row.
	s.left = min(s.left+time.Duration(share*float64(elapsed)), maxInRow*50*time.Microsecond)
}
