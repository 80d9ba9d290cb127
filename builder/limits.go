package builder

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/time/rate"
)

// clientLimits bounds what each client network may ask for.
type clientLimits struct {
	cfg     LimitConfig
	proxies []netip.Prefix // whose X-Forwarded-For counts
	except  []netip.Prefix // have no limits
	logger  *slog.Logger
	warn    sync.Once

	mu      sync.Mutex
	clients map[string]*clientLimit
}

type clientLimit struct {
	recent, old, pages *rate.Limiter
	used               time.Time
}

const maxClients = 10_000

func newClientLimits(cfg LimitConfig, logger *slog.Logger) (*clientLimits, error) {
	proxies, err1 := parseNetworks(cfg.Proxies)
	except, err2 := parseNetworks(cfg.Except)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	return &clientLimits{cfg: cfg, proxies: proxies, except: except, logger: logger, clients: map[string]*clientLimit{}}, nil
}

// of returns the limits of a client, nil if it has none. c.mu is held.
func (c *clientLimits) of(client string, now time.Time) *clientLimit {
	if p, err := netip.ParsePrefix(client); err == nil {
		if p.Addr().IsLoopback() {
			return nil
		}
		for _, e := range c.except {
			if e.Contains(p.Addr()) && e.Bits() <= p.Bits() {
				return nil
			}
		}
	}
	l, ok := c.clients[client]
	if !ok {
		if len(c.clients) >= maxClients {
			c.forget(now)
		}
		per := func(n int, d time.Duration) *rate.Limiter {
			if n == 0 {
				return rate.NewLimiter(rate.Inf, 1)
			}
			return rate.NewLimiter(rate.Limit(float64(n)/d.Seconds()), n)
		}
		l = &clientLimit{recent: per(c.cfg.Recent, time.Hour), old: per(c.cfg.Old, time.Hour), pages: per(c.cfg.Pages, time.Minute)}
		c.clients[client] = l
	}
	l.used = now
	return l
}

// take counts one new build of a client, or refuses it.
func (c *clientLimits) take(client string, recent func() bool, now time.Time) error {
	isRecent := recent() // may ask the network
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.of(client, now)
	switch {
	case l == nil:
		return nil
	case isRecent:
		return take(l.recent, "new builds", now)
	}
	return take(l.old, "new builds with old Go versions", now)
}

// page counts one page that asks the module proxy, or refuses it.
func (c *clientLimits) page(r *http.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	l := c.of(ClientOf(r), now)
	if l == nil {
		return nil
	}
	return take(l.pages, "pages of modules", now)
}

func take(l *rate.Limiter, what string, now time.Time) error {
	if l.AllowN(now, 1) {
		return nil
	}
	every := time.Duration(float64(time.Second) / float64(l.Limit()))
	return &Failure{Status: http.StatusTooManyRequests, after: every,
		Text: fmt.Sprintf("Your network has asked for too many %s; there is a new one every %v.", what, every.Round(time.Second))}
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
