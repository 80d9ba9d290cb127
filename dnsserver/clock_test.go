package dnsserver

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A server that came up with a clock that was ahead, and was set right, does not
// serve signatures from the future, and uses the keys that are due by the right
// time.
func TestClockSetBack(t *testing.T) {
	for _, denial := range []string{DenialCompact, DenialNSEC} {
		clock := time.Now().Truncate(time.Second)
		right := clock
		cfg := testConfig()
		cfg.Denial, cfg.StaleAfter = denial, 0
		keys := testKeys(t, "ed25519")
		clock = right.Add(3 * 365 * 24 * time.Hour)
		h, err := NewHandler(cfg, keys, testIndex(), Options{Now: func() time.Time { return clock }})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(name string, typ uint16) (sigs []*dns.RRSIG) {
			t.Helper()
			packet, _ := question(name, typ, true).Pack()
			out, _ := h.Respond(nil, packet, client, true)
			var r dns.Msg
			if err := r.Unpack(out); err != nil {
				t.Fatal(err)
			}
			for _, rr := range append(r.Answer, r.Ns...) {
				if sig, ok := rr.(*dns.RRSIG); ok {
					sigs = append(sigs, sig)
				}
			}
			if len(sigs) == 0 {
				t.Fatalf("no signatures: %v", r)
			}
			return sigs
		}
		check := func(when string) {
			t.Helper()
			for _, q := range []struct {
				name string
				typ  uint16
			}{{moxName, dns.TypeTXT}, {testZone, dns.TypeDNSKEY}, {"missing.v0." + testZone, dns.TypeTXT}, {"com.v0." + testZone, dns.TypeTXT}} {
				for _, sig := range ask(q.name, q.typ) {
					if !sig.ValidityPeriod(clock) {
						t.Errorf("%s, %s: %s at %s: %v", denial, when, q.name, clock, sig)
					}
				}
			}
		}
		check("ahead")
		clock = right
		if err := h.refresh(false); err != nil {
			t.Fatal(err)
		}
		check("set right")
		// Small steps, as they are made to follow other clocks, cost nothing.
		made := h.stat.sigs.Load()
		clock = clock.Add(-5 * time.Second)
		if err := h.refresh(false); err != nil {
			t.Fatal(err)
		}
		check("a little back")
		if n := h.stat.sigs.Load() - made; n > 0 {
			t.Errorf("%s: %d signatures after a small step", denial, n)
		}
	}
}
