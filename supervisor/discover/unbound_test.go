package discover

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// Through a real resolver: what it does not validate we do, and with its AD bit
// both come to the same.
func TestUnbound(t *testing.T) {
	old := epoch
	epoch = time.Now().UTC().Truncate(time.Second)
	zonetest.Epoch = epoch
	defer func() { epoch, zonetest.Epoch = old, old }()
	tr := zonetest.New(t, zonetest.Fast)
	addr := validators[0].start(t, tr, tr.Root.Key.ToDS(dns.SHA256))
	with := func(trust string) *Discoverer {
		return discoverer(t, tr, func(c *Config, _ *Options) {
			c.Sources, c.Trust, c.Timeout = []string{"udp://" + addr}, trust, config.Duration(time.Minute)
		})
	}
	for _, trust := range []string{TrustDNSSEC, TrustResolver} {
		d := with(trust)
		if a, err := d.Ask(t.Context(), hello); err != nil || join(a.Versions) != "v1.0.1 v0.3.0" {
			t.Errorf("%s: %v, %v", trust, a.Versions, err)
		}
		if _, err := d.Ask(t.Context(), "example.org/nothing"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: unknown module: %v", trust, err)
		}
	}
	tr.Mu.Lock()
	tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg {
		for _, r := range m.Answer {
			if txt, ok := r.(*dns.TXT); ok {
				txt.Txt = []string{"v=v1.0.66 t=6a000000"}
			}
		}
		return m
	}
	tr.Mu.Unlock()
	// With CD the resolver hands on what it would refuse, so that the reason is ours.
	if _, err := with(TrustDNSSEC).Ask(t.Context(), hello); bogusKind(err) != BadSignature {
		t.Errorf("forged, validated here: %v", err)
	}
	if _, err := with(TrustResolver).Ask(t.Context(), hello); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("forged, validated by the resolver: %v", err)
	}
}
