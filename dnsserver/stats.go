package dnsserver

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Types of queries that are counted by name; all others are "other".
var countedTypes = [...]uint16{
	dns.TypeTXT, dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeDNSKEY, dns.TypeDS, dns.TypeANY,
	dns.TypeNSEC, dns.TypeCAA, dns.TypeMX, dns.TypeSVCB, dns.TypeHTTPS,
}

// latencyBounds are the upper bounds of the buckets of the histogram.
var latencyBounds = [...]time.Duration{
	10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond,
	3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond,
}

// took counts n answers that took that long.
func (s *stats) took(d time.Duration, n int) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	s.latency[i].Add(uint64(n))
	s.spent.Add(uint64(d) * uint64(n))
}

const rcodes = 24 // NOERROR to BADCOOKIE

// stats counts what a handler does. Counters only grow.
type stats struct {
	queries   [transports]atomic.Uint64
	types     [len(countedTypes) + 1]atomic.Uint64
	rcodes    [rcodes]atomic.Uint64
	dropped   atomic.Uint64 // packets that are no queries
	hits      atomic.Uint64
	truncated atomic.Uint64
	limited   atomic.Uint64 // answers above the rate limit
	sigs      atomic.Uint64
	overload  atomic.Uint64 // queries turned away because too many waited for a signature

	latency [len(latencyBounds) + 1]atomic.Uint64 // answers by time from reading the query, not cumulated
	spent   atomic.Uint64                         // nanoseconds in all

	openConns    atomic.Int64
	refusedConns atomic.Uint64

	size     atomic.Int64 // of the log
	accepted atomic.Int64 // Unix time
	stale    atomic.Bool
}

func newStats() *stats { return &stats{} }

func (s *stats) signed() { s.sigs.Add(1) }

func (s *stats) head(v *view) {
	s.size.Store(v.head.Size)
	s.accepted.Store(v.head.Accepted.Unix())
	s.stale.Store(v.stale != "")
}

var typeSlot = func() (slots [300]uint8) {
	for i := range slots {
		slots[i] = uint8(len(countedTypes))
	}
	for i, t := range countedTypes {
		slots[t] = uint8(i)
	}
	return slots
}()

func (s *stats) count(t Transport, q *query, out []byte, a *answer) {
	s.queries[t].Add(1)
	slot := uint8(len(countedTypes))
	if int(q.qtype) < len(typeSlot) && q.question != nil {
		slot = typeSlot[q.qtype]
	}
	s.types[slot].Add(1)
	s.rcodes[min(a.rcode, rcodes-1)].Add(1)
	if binary.BigEndian.Uint16(out[2:])&flagTC != 0 {
		s.truncated.Add(1)
	}
}
