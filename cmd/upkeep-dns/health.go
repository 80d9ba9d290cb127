package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/web"
	"example.org/upkeep/web/indexpage"
)

// health tells the page how the zone does. Viewers can make it look at the key
// files and ask the other servers only once in a while.
type health struct {
	zone  dnsserver.ZoneConfig
	keys  func() ([]*dnsserver.Key, error)
	index index.Reader
	port  uint16 // of the other servers
	log   *slog.Logger

	mu    sync.Mutex
	facts []indexpage.Fact
	at    time.Time
}

const (
	healthAge  = time.Minute     // how long an answer is kept
	healthWait = 2 * time.Second // for the other servers
)

// Facts returns the lines for the page.
func (h *health) Facts(ctx context.Context) []indexpage.Fact {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) > healthAge {
		ctx, cancel := context.WithTimeout(ctx, healthWait)
		defer cancel()
		h.facts, h.at = append(h.keyFacts(time.Now()), h.serverFacts(ctx)...), time.Now()
	}
	return h.facts
}

func (h *health) keyFacts(now time.Time) []indexpage.Fact {
	keys, err := h.keys()
	if err != nil {
		h.log.Error("reading the zone's keys for the page", "err", err)
		return []indexpage.Fact{{Name: "Keys", Value: "cannot be read", Bad: true}}
	}
	var facts []indexpage.Fact
	active := false
	for _, k := range keys {
		state := k.State(now)
		active = active || state == "active"
		value := fmt.Sprintf("%s, %s", dns.AlgorithmToString[k.Public.Algorithm], state)
		for _, t := range []struct {
			what string
			at   time.Time
		}{{"signs from", k.Activate}, {"signs until", k.Inactive}, {"goes", k.Delete}} {
			if t.at.After(now) {
				value += fmt.Sprintf(", %s %s", t.what, t.at.UTC().Format("2006-01-02 15:04 UTC"))
			}
		}
		facts = append(facts, indexpage.Fact{Name: fmt.Sprintf("Key %d", k.Tag), Value: value})
	}
	if !active {
		facts = append(facts, indexpage.Fact{Name: "Keys", Value: "none signs now", Bad: true})
	}
	v := h.zone.Validity.D()
	return append(facts, indexpage.Fact{Name: "Signatures", Value: "valid for " + web.Seconds(v) + ", made anew at half of it"})
}

// serverFacts asks the zone's name servers how far their index is.
func (h *health) serverFacts(ctx context.Context) []indexpage.Fact {
	head, err := h.index.Head()
	if err != nil {
		h.log.Error("reading the index for the page", "err", err)
		return nil
	}
	facts := make([]indexpage.Fact, len(h.zone.NameServers))
	var wg sync.WaitGroup
	for i, ns := range h.zone.NameServers {
		facts[i].Name = "Server " + strings.TrimSuffix(ns.Name, ".")
		if len(ns.Addresses) == 0 {
			facts[i].Value = "not asked: its address is not in the configuration"
			continue
		}
		wg.Go(func() {
			size, err := askSize(ctx, netip.AddrPortFrom(ns.Addresses[0], h.port), h.zone.Zone)
			facts[i].Value, facts[i].Bad = serverVerdict(size, head.Size, err)
		})
	}
	wg.Wait()
	return facts
}

// tolerance is how many records a server may be behind without being noticed:
// new records are in the log before all servers have them.
const tolerance = 100_000

func serverVerdict(size, own int64, err error) (string, bool) {
	switch {
	case err != nil:
		return "no answer: " + err.Error(), true
	case size == own:
		return web.Number(size) + " records, like this one", false
	case size > own:
		return fmt.Sprintf("%s records, %s more than this one", web.Number(size), web.Number(size-own)), size-own > tolerance
	}
	return fmt.Sprintf("%s records, %s less than this one", web.Number(size), web.Number(own-size)), own-size > tolerance
}

// askSize asks a server for the size of its log. The answer is shown and
// nothing else, so it is not validated.
func askSize(ctx context.Context, server netip.AddrPort, zone string) (int64, error) {
	m := new(dns.Msg)
	m.SetQuestion(name.Status(zone), dns.TypeTXT)
	resp, _, err := new(dns.Client).ExchangeContext(ctx, m, server.String())
	if err != nil {
		return 0, err
	}
	for _, rr := range resp.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			st, err := name.ParseStatus(strings.Join(txt.Txt, ""))
			return st.Size, err
		}
	}
	return 0, fmt.Errorf("it has no status (%s)", dns.RcodeToString[resp.Rcode])
}
