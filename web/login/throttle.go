package login

import (
	"net/netip"
	"sync"
	"time"
)

// A bucket lets some guesses through at once and then one now and then.
type bucket struct {
	left float64
	at   time.Time
}

// take removes one guess; when there is none it says how long to wait.
func (b *bucket) take(now time.Time, size, perSecond float64) (time.Duration, bool) {
	if b.at.IsZero() {
		b.left = size
	} else if d := now.Sub(b.at).Seconds(); d > 0 {
		b.left = min(size, b.left+d*perSecond)
	}
	b.at = now
	if b.left < 1 {
		return time.Duration((1 - b.left) / perSecond * float64(time.Second)), false
	}
	b.left--
	return 0, true
}

// Guesses: from one address 5 at once and then one a minute, from all together
// 30 and then one every two seconds. Addresses that logged in before don't
// count against the second limit, so that guessing by others locks nobody out.
const (
	addrSize, addrRate     = 5, 1.0 / 60
	globalSize, globalRate = 30, 1.0 / 2
	maxAddrs               = 10_000
	logEvery               = time.Hour
)

// A throttle counts failed logins.
type throttle struct {
	mu     sync.Mutex
	addrs  map[netip.Addr]*attempts
	all    bucket
	failed int // since the last line in the log
	logged time.Time
}

type attempts struct {
	bucket
	known bool // somebody logged in from here
}

// network is what counts as one address: an IPv6 host has a whole /64.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// allow says whether a guess from an address may be looked at, and if not how
// long to wait.
func (t *throttle) allow(addr netip.Addr, now time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.get(network(addr), now)
	if wait, ok := a.take(now, addrSize, addrRate); !ok {
		return wait, false
	}
	if a.known {
		return 0, true
	}
	return t.all.take(now, globalSize, globalRate)
}

func (t *throttle) get(addr netip.Addr, now time.Time) *attempts {
	if a, ok := t.addrs[addr]; ok {
		return a
	}
	if t.addrs == nil {
		t.addrs = map[netip.Addr]*attempts{}
	}
	if len(t.addrs) >= maxAddrs {
		// Those that may guess as much as a new one need no memory.
		for k, a := range t.addrs {
			if !a.known && now.Sub(a.at).Seconds()*addrRate >= addrSize {
				delete(t.addrs, k)
			}
		}
		for k := range t.addrs {
			if len(t.addrs) < maxAddrs {
				break
			}
			delete(t.addrs, k)
		}
	}
	a := &attempts{}
	t.addrs[addr] = a
	return a
}

// good notes that somebody logged in from an address.
func (t *throttle) good(addr netip.Addr, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.get(network(addr), now)
	a.known, a.left, a.at = true, addrSize, now
}

// bad notes a failed or refused guess. It says whether to write a line to the
// log, and how many failures that line stands for.
func (t *throttle) bad(now time.Time) (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	if !t.logged.IsZero() && now.Sub(t.logged) < logEvery {
		return 0, false
	}
	n := t.failed
	t.failed, t.logged = 0, now
	return n, true
}
