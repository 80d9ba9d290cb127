package dnsserver

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/tlog/index"
)

// A Transport is how a query came.
type Transport uint8

const (
	UDP Transport = iota
	TCP
	TLS
	HTTPS
	QUIC
	transports
)

func (t Transport) String() string { return [...]string{"udp", "tcp", "tls", "https", "quic"}[t] }

func (t Transport) encrypted() bool { return t >= TLS }

// A Client is who asks, and how.
type Client struct {
	Addr      netip.AddrPort
	Transport Transport
}

// Options are settings of a [Handler] beside its zone.
type Options struct {
	Logger *slog.Logger
	Limits
	Now func() time.Time
}

// Limits are the bounds of a [Handler].
type Limits struct {
	Answers int // answers kept in the cache; 0 is the default
	Rate    RateConfig
}

// DefaultAnswers is how many answers, and how many signatures, are kept.
const DefaultAnswers = 1 << 17

// A Handler answers queries. Its methods can be called from many goroutines.
type Handler struct {
	idx  index.Reader
	opts Options
	log  *slog.Logger
	now  func() time.Time

	view atomic.Pointer[view]
	mu   sync.Mutex // one writer of view

	latest int64 // the latest Unix time that was seen, under mu

	chains *chainKeeper // nil with compact denial
	pieces atomic.Int64 // NSEC records of the chain that are kept, about

	seed    maphash.Seed // of the hashes of questions
	cookies atomic.Pointer[[]cookieSecret]

	sample, sampled atomic.Uint64 // of queries to log

	idle atomic.Int64 // idle limit of TCP connections, for the keepalive option
	stat *stats
}

// NewHandler makes a handler for the zone. Run keeps it up to date with the
// index.
func NewHandler(cfg ZoneConfig, keys []*Key, idx index.Reader, opts Options) (*Handler, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	h := &Handler{
		idx: idx, opts: opts, log: opts.Logger, now: opts.Now,
		stat: newStats(), seed: maphash.MakeSeed(),
	}
	h.cookies.Store(newCookieSecrets())
	if err := h.Reload(cfg, keys, opts.Limits); err != nil {
		return nil, err
	}
	return h, nil
}

// CheckReload reports what Reload would find wrong with configuration and keys,
// and changes nothing.
func (h *Handler) CheckReload(cfg ZoneConfig, keys []*Key) error {
	return CheckZone(cfg, keys, h.now())
}

// CheckZone reports what is wrong with configuration and keys at a time.
func CheckZone(cfg ZoneConfig, keys []*Key, now time.Time) error {
	_, err := newZone(cfg, keys, 0, now, func() {})
	return err
}

// Reload takes another configuration, other keys or other limits. On an error the
// old ones stay in use.
func (h *Handler) Reload(cfg ZoneConfig, keys []*Key, limits Limits) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if limits.Answers == 0 {
		limits.Answers = DefaultAnswers
	}
	z, err := newZone(cfg, keys, limits.Answers, h.now(), h.stat.signed)
	if err != nil {
		return err
	}
	for _, k := range z.signer.unsigned(keys, h.now()) {
		h.log.Warn("none of our keys signs with the algorithm of another operator's key: validators may refuse what we sign", "key", k.Tag, "algorithm", dns.AlgorithmToString[k.Public.Algorithm])
	}
	return h.store(z, limits, true)
}

// store publishes a zone with the index's present head. With keep it takes over the
// signatures of one with the same keys. The caller holds mu.
func (h *Handler) store(z *zone, limits Limits, keep bool) error {
	head, err := h.idx.Head()
	if err != nil {
		return fmt.Errorf("reading the head of the index: %w", err)
	}
	now := h.now()
	h.latest = max(h.latest, now.Unix())
	if old := h.view.Load(); keep && old != nil && old.zone != z && old.zone.signer.sameAs(z.signer) {
		z.signer = old.zone.signer // with the signatures it keeps; nobody else has z yet
	}
	v := &view{zone: z, idx: h.idx, limits: limits, head: head, stale: staleness(head, z.stale, now)}
	if v.chain, err = h.chain(z); err != nil {
		return err
	}
	if old := h.view.Load(); old != nil {
		v.gen = old.gen + 1
		v.answers, v.denials, v.absent, v.limit = old.answers, old.denials, old.absent, old.limit
		if old.stale != v.stale {
			if v.stale != "" {
				h.log.Error("names of modules are answered SERVFAIL", "why", v.stale)
			} else {
				h.log.Info("names of modules are answered again")
			}
		}
	}
	if old := h.view.Load(); old == nil || old.limits.Answers != limits.Answers {
		v.answers, v.denials, v.absent = newCache(limits.Answers), newCache(limits.Answers/4), newAbsenceTable(limits.Answers/2)
	}
	if old := h.view.Load(); old == nil || old.limits.Rate != limits.Rate {
		v.limit = newLimiter(limits.Rate, now)
	}
	h.view.Store(v)
	h.stat.head(v)
	return nil
}

// chain returns the chain of a zone, nil if it has none. The caller holds mu.
func (h *Handler) chain(z *zone) (*chain, error) {
	if z.cfg.Denial != DenialNSEC {
		h.chains = nil
		return nil, nil
	}
	if h.chains == nil {
		idx, ok := h.idx.(Lister)
		if !ok {
			return nil, errNoLister
		}
		h.chains = &chainKeeper{idx: idx, pieces: &h.pieces}
	}
	return h.chains.update(z)
}

// refresh publishes what is new: the index when changed is set, its head, keys
// whose time has come, and that it has become too old.
func (h *Handler) refresh(changed bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.view.Load()
	now := h.now()
	z := v.zone
	back := h.setBack(now)
	if due := !z.nextTime.IsZero() && !now.Before(z.nextTime); due || back {
		next, err := newZone(z.cfg, z.keys, v.limits.Answers, now, h.stat.signed)
		if err != nil {
			h.log.Error("by their times the keys should change now, but then the zone can't be signed: the old set stays", "err", err)
			// Not again each second: the keys have to be changed first.
			kept := *z
			kept.nextTime = time.Time{}
			next = &kept
		} else if due {
			h.log.Info("the set of keys changed, as their times say")
		}
		z, changed = next, true
	}
	if !changed {
		head, err := h.idx.Head()
		if err != nil {
			return fmt.Errorf("reading the head of the index: %w", err)
		}
		changed = head != v.head || staleness(head, z.stale, now) != v.stale
	}
	if !changed {
		return nil
	}
	return h.store(z, v.limits, !back)
}

// maxBack is how far the clock may go back before everything is signed anew. Since
// signatures begin to be valid three hours back, those that are there do until then.
const maxBack = inceptionBack / 3

// setBack notes the time, and reports whether the clock was set back so far that
// signatures may be kept that are not valid yet. The caller holds mu.
func (h *Handler) setBack(now time.Time) bool {
	if by := time.Duration(h.latest-now.Unix()) * time.Second; by > maxBack {
		h.log.Warn("the clock was set back: everything is signed anew", "by", by)
		h.latest = now.Unix()
		return true
	}
	h.latest = max(h.latest, now.Unix())
	return false
}

// Run follows changes of the index until ctx ends.
func (h *Handler) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	changed := h.idx.Changed()
	if err := h.refresh(true); err != nil { // what changed before changed was taken
		h.log.Error("following the index", "err", err)
	}
	for {
		is := false
		select {
		case <-ctx.Done():
			return
		case <-changed:
			changed, is = h.idx.Changed(), true
		case <-tick.C:
		}
		if err := h.refresh(is); err != nil {
			h.log.Error("following the index", "err", err)
		}
	}
}

// Zone returns the name of the zone.
func (h *Handler) Zone() string { return h.view.Load().zone.text }
