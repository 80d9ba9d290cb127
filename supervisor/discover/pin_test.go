package discover

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// A zone's keys are pinned as the chain proves them; a private zone's without
// proof, and it is said; and not at all where somebody lies.
func TestFindPin(t *testing.T) {
	for _, tc := range []struct {
		name   string
		source string // scheme
		do     func(t *testing.T, tr *zonetest.Tree)
		proved bool
		why    string // why it is not proved
		says   string // the error
	}{
		{"chain", "tcp", nil, true, "", ""},
		{"delegation without DS", "tcp", func(t *testing.T, tr *zonetest.Tree) {
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeDS))
		}, false, "without a DS record", ""},
		{"a zone that the public tree does not have", "tcp", func(t *testing.T, tr *zonetest.Tree) {
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeDS))
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeNS))
		}, false, "does not exist", ""},
		{"the zone's own server", "server", nil, false, "cannot prove its keys", ""},
		{"another key", "tcp", func(t *testing.T, tr *zonetest.Tree) {
			evil := zonetest.NewZone(t, testZone, dns.ECDSAP256SHA256, "compact")
			tr.Zone.Key, tr.Zone.Priv = evil.Key, evil.Priv
			tr.Zone.Set(evil.Key)
		}, false, "", "no key of l.upkeep.test. is the one"},
		{"DS removed without proof", "tcp", func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = zonetest.OnQuestion(testZone, dns.TypeDS, func(m *dns.Msg) *dns.Msg { m.Answer, m.Ns = nil, nil; return m })
		}, false, "", "nothing signed proves it"},
		{"keys that do not sign themselves", "server", func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = zonetest.OnQuestion(testZone, dns.TypeDNSKEY, zonetest.Unsigned)
		}, false, "", "has no signature"},
		{"no keys", "server", func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = zonetest.OnQuestion(testZone, dns.TypeDNSKEY, func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m })
		}, false, "", "gives no key"},
		{"silence", "server", func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = func(dns.Question, *dns.Msg) *dns.Msg { return nil }
		}, false, "", "did not answer in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := zonetest.New(t, zonetest.Fast)
			want := tr.Zone.Key.KeyTag()
			tr.Mu.Lock()
			if tc.do != nil {
				tc.do(t, tr)
			}
			tr.Mu.Unlock()
			root := filepath.Join(t.TempDir(), "root")
			if err := os.WriteFile(root, []byte(tr.Anchor()), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := Config{Zone: testZone, Sources: []string{tc.source + "://" + tr.Addr}, Anchor: root, Timeout: config.Duration(20 * time.Second)}
			if tc.name == "silence" {
				cfg.Timeout = config.Duration(200 * time.Millisecond)
			}
			p, err := FindPin(t.Context(), cfg, epoch)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%+v, %v; want %q", p, err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Proved() != tc.proved || len(p.DS) != 1 || p.DS[0].KeyTag != want || !tc.proved && !strings.Contains(p.Why.Error(), tc.why) {
				t.Errorf("%+v", p)
			}
			// What is written works as an anchor.
			file := filepath.Join(t.TempDir(), "anchor")
			if err := os.WriteFile(file, []byte(p.Text(epoch)), 0o600); err != nil {
				t.Fatal(err)
			}
			d := discoverer(t, tr, func(c *Config, _ *Options) { c.Anchor, c.Sources = file, []string{"server://" + tr.Addr} })
			if a, err := d.Ask(t.Context(), hello); err != nil || len(a.Sources[0].Chain) != 1 {
				t.Errorf("with the pinned key: %+v, %v", a, err)
			}
		})
	}
}

// Sources that give different keys are a sign of somebody on the way.
func TestFindPinDiffers(t *testing.T) {
	one, two := zonetest.New(t, zonetest.Fast), zonetest.New(t, zonetest.Fast)
	cfg := Config{Zone: testZone, Sources: []string{"server://" + one.Addr, "server://" + two.Addr}}
	p, err := FindPin(t.Context(), cfg, epoch)
	var bogus *BogusError
	if !errors.As(err, &bogus) || bogus.Kind != WrongKey || !strings.Contains(err.Error(), "give different keys") {
		t.Errorf("%+v, %v", p, err)
	}
}
