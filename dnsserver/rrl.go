package dnsserver

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// RateConfig limits answers over UDP to one network, so that a forged source
// address makes us a poor weapon. Askers that show a valid cookie, and all over
// TCP, have proven their address and are not limited.
type RateConfig struct {
	Answers int `toml:"answers_per_second" comment:"The same answer, to one network (IPv4 /24, IPv6 /56). 0 is no limit."`
	Denials int `toml:"denials_per_second" comment:"Denials of any name, to one network. 0 is no limit."`
	Errors  int `toml:"errors_per_second" comment:"Errors, to one network. 0 is no limit."`
	Slip    int `toml:"slip" comment:"Of the answers above a limit, one of so many says to use TCP, the others are dropped. 1 is all, 0 is none."`
}

// DefaultRateConfig is far above what a resolver needs: it asks for a name
// once in its TTL.
func DefaultRateConfig() RateConfig {
	return RateConfig{Answers: 50, Denials: 200, Errors: 50, Slip: 2}
}

// A category of answers has its own limit.
type category uint8

const (
	catAnswer category = iota
	catDenial
	catError
	categories
)

func categoryOf(a *answer) category {
	switch {
	case a.an > 0:
		return catAnswer
	case a.rcode == dns.RcodeSuccess || a.rcode == dns.RcodeNameError:
		return catDenial
	}
	return catError
}

// A limiter has a slot for each account: a network, a category and, for
// answers, the question. A slot holds when the account's next answer would be
// due at the limit's pace (the generic cell rate algorithm), and a tag of the
// account. With more accounts than slots some go unlimited.
type limiter struct {
	seed     maphash.Seed
	slots    []atomic.Uint64
	interval [categories]int64 // in ticks, 0 for no limit
	slip     uint64
	start    time.Time
}

const (
	tick      = 16 * time.Microsecond
	burst     = int64(time.Second / tick) // an account can use a second's worth at once
	tagBits   = 20
	tickBits  = 64 - tagBits
	rateSlots = 1 << 16
)

func newLimiter(cfg RateConfig, start time.Time) *limiter {
	l := &limiter{seed: maphash.MakeSeed(), slots: make([]atomic.Uint64, rateSlots), slip: uint64(max(cfg.Slip, 0)), start: start.Add(-2 * time.Second)}
	for i, n := range [categories]int{cfg.Answers, cfg.Denials, cfg.Errors} {
		if n > 0 {
			l.interval[i] = max(int64(time.Second/tick)/int64(n), 1)
		}
	}
	return l
}

// A decision says what becomes of an answer.
type decision uint8

const (
	decideSend decision = iota
	decideTruncate
	decideDrop
)

// decide counts an answer to a network. The hash tells questions apart.
func (l *limiter) decide(addr netip.Addr, cat category, question uint64, now time.Time, id uint16) decision {
	interval := l.interval[cat]
	if interval == 0 {
		return decideSend
	}
	var account [18]byte
	a := addr.As16()
	n := copy(account[:], a[:7]) // IPv6: /56
	if addr.Is4() {
		n = copy(account[:], a[12:15]) // IPv4: /24
	}
	account[n] = byte(cat)
	if cat == catAnswer {
		binary.LittleEndian.PutUint64(account[n+1:], question)
		n += 8
	}
	h := maphash.Bytes(l.seed, account[:n+1])
	slot := &l.slots[h%rateSlots]
	tag := h >> tickBits
	t := int64(now.Sub(l.start) / tick)
	for {
		old := slot.Load()
		due := int64(old & (1<<tickBits - 1))
		if old>>tickBits != tag {
			if due > t {
				return decideSend // the slot is another account's
			}
			due = t
		}
		due = max(due, t) + interval
		if due-t > burst+interval {
			if l.slip > 0 && uint64(id)%l.slip == 0 {
				return decideTruncate
			}
			return decideDrop
		}
		if slot.CompareAndSwap(old, tag<<tickBits|uint64(due)) {
			return decideSend
		}
	}
}
