package builder

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/time/rate"
)

// clientLimits bounds the new builds of each client network.
type clientLimits struct {
	cfg LimitConfig

	mu      sync.Mutex
	clients map[string]*clientLimit
}

type clientLimit struct {
	recent, old *rate.Limiter
	used        time.Time
}

const maxClients = 10_000

func newClientLimits(cfg LimitConfig) *clientLimits {
	return &clientLimits{cfg: cfg, clients: map[string]*clientLimit{}}
}

// take counts one new build of a client, or refuses it.
func (c *clientLimits) take(client string, recent func() bool, now time.Time) error {
	if p, err := netip.ParsePrefix(client); err == nil && p.Addr().IsLoopback() {
		return nil
	}
	isRecent := recent() // may ask the network
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.clients[client]
	if !ok {
		if len(c.clients) >= maxClients {
			c.forget(now)
		}
		perHour := func(n int) *rate.Limiter {
			if n == 0 {
				return rate.NewLimiter(rate.Inf, 1)
			}
			return rate.NewLimiter(rate.Limit(float64(n)/3600), n)
		}
		l = &clientLimit{recent: perHour(c.cfg.Recent), old: perHour(c.cfg.Old)}
		c.clients[client] = l
	}
	l.used = now
	which, what := l.recent, "new builds"
	if !isRecent {
		which, what = l.old, "new builds with old Go versions"
	}
	if !which.AllowN(now, 1) {
		return &Failure{Status: http.StatusTooManyRequests,
			Text: fmt.Sprintf("Your network has asked for too many %s; there is a new one every %v.", what, time.Duration(float64(time.Second)/float64(which.Limit())).Round(time.Second))}
	}
	return nil
}

// forget makes room: first of clients whose limits are full again, else of the
// half that was not there for longest.
func (c *clientLimits) forget(now time.Time) {
	type entry struct {
		client string
		used   time.Time
	}
	var byUse []entry
	for k, l := range c.clients {
		if now.Sub(l.used) > time.Hour {
			delete(c.clients, k)
			continue
		}
		byUse = append(byUse, entry{k, l.used})
	}
	if len(c.clients) < maxClients/2 {
		return
	}
	slices.SortFunc(byUse, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range byUse[:len(byUse)/2] {
		delete(c.clients, e.client)
	}
}

// allowed reports whether the lists let a module be built.
func allowed(allow, deny []string, path string) bool {
	if module.MatchPrefixPatterns(strings.Join(deny, ","), path) {
		return false
	}
	return len(allow) == 0 || module.MatchPrefixPatterns(strings.Join(allow, ","), path)
}
