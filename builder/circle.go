package builder

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"example.org/upkeep/builder/spec"
)

// Two builders that know no opinions and name each other can't both wait for
// the other's log. One whose log is asked here (see verifier.ask) may be such:
// if it looks the same build up in our log, neither would ever end. So lookups
// from the addresses of a verifier get their answer while its log is asked: not
// logged yet. What the verifier then says ends our wait as well. `asks_back` is
// the setting with which both can log.
type circles struct {
	grace time.Duration // a verifier that has a record says so before that

	mu      sync.Mutex
	asked   []*asking
	waiting map[*lookup]bool
}

// An asking is a verifier whose log is asked for a build.
type asking struct {
	spec spec.Spec
	from []netip.Prefix
	due  bool // the grace is over
	met  bool // it asked for the same
}

// A lookup is somebody who waits for our log.
type lookup struct {
	spec   spec.Spec
	addr   netip.Addr
	cancel context.CancelCauseFunc
}

// circleGrace is much longer than looking a record up takes, and shorter than
// most builds.
const circleGrace = 10 * time.Second

// errCircle is the answer to a verifier that asks back.
var errCircle = &Failure{Text: "This server has built it and waits for the record of a builder at your address; it is not logged yet.", after: 10 * time.Second}

func newCircles() *circles {
	return &circles{grace: circleGrace, waiting: map[*lookup]bool{}}
}

// ask notes that a verifier's log is asked. The function that it returns ends
// that and says whether the verifier asked for the same meanwhile.
func (c *circles) ask(sp spec.Spec, from []netip.Prefix) (end func() (met bool)) {
	a := &asking{spec: sp, from: from}
	c.mu.Lock()
	c.asked = append(c.asked, a)
	c.mu.Unlock()
	timer := time.AfterFunc(c.grace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		a.due = true
		for l := range c.waiting {
			c.turnAway(a, l)
		}
	})
	return func() bool {
		timer.Stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = slices.DeleteFunc(c.asked, func(o *asking) bool { return o == a })
		return a.met
	}
}

// turnAway ends a lookup that waits for what is asked of the asker.
func (c *circles) turnAway(a *asking, l *lookup) {
	if a.due && a.spec == l.spec && contains(a.from, l.addr) {
		a.met = true
		l.cancel(errCircle)
	}
}

// wait returns a context for a lookup that ends with errCircle when it would
// wait for itself.
func (c *circles) wait(ctx context.Context, sp spec.Spec, addr netip.Addr) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &lookup{sp, addr, cancel}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[l] = true
	for _, a := range c.asked {
		c.turnAway(a, l)
	}
	return ctx, func() {
		c.mu.Lock()
		delete(c.waiting, l)
		c.mu.Unlock()
		cancel(nil)
	}
}

// sources returns the networks that a verifier may ask from: those that the
// configuration names, and the addresses of its log.
func (v *verifier) sources(ctx context.Context) []netip.Prefix {
	u, err := url.Parse(v.base)
	if err != nil {
		return v.from
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return v.from // if these are none, nobody is turned away, and the wait ends with verify_timeout
	}
	from := slices.Clone(v.from)
	for _, a := range list {
		a = a.Unmap().WithZone("")
		from = append(from, netip.PrefixFrom(a, a.BitLen()))
	}
	return from
}
