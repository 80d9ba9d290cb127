package discover

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// A setup is a discoverer for a tree.
func discoverer(t testing.TB, tr *zonetest.Tree, change ...func(*Config, *Options)) *Discoverer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(file, []byte(tr.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Zone, cfg.Sources, cfg.Anchor = testZone, []string{"udp://" + tr.Addr}, file
	cfg.Timeout = config.Duration(time.Minute) // for the slowest machine
	opt := Options{Now: func() time.Time { return epoch }, Dir: t.TempDir()}
	for _, f := range change {
		f(&cfg, &opt)
	}
	d, err := New(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestAskThroughTree(t *testing.T) {
	for _, tc := range []struct {
		name string
		algs zonetest.Algorithms
	}{
		{"RSA, P-256, P-256; NSEC, compact denial", zonetest.Default},
		{"Ed25519, P-384, Ed25519; NSEC3, NSEC", zonetest.Algorithms{Root: dns.ED25519, TLD: dns.ECDSAP384SHA384, Zone: dns.ED25519, TLDDenial: "nsec3", ZoneDenial: "nsec"}},
		{"P-256, RSA, RSA; compact denial, NSEC3", zonetest.Algorithms{Root: dns.ECDSAP256SHA256, TLD: dns.RSASHA256, Zone: dns.RSASHA256, TLDDenial: "compact", ZoneDenial: "nsec3"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := zonetest.New(t, tc.algs)
			d := discoverer(t, tr)
			a, err := d.Ask(t.Context(), hello)
			if err != nil {
				t.Fatal(err)
			}
			if join(a.Versions) != "v1.0.1 v0.3.0" || join(a.Toolchain) != "go1.27.4 go1.26.11" || a.Status.Size != 100 {
				t.Errorf("answer %+v", a)
			}
			if len(a.Sources[0].Chain) != 3 || !strings.Contains(a.Proof, "root (key ") || !strings.Contains(a.Proof, "l.upkeep.test (key ") {
				t.Errorf("proof %q, chain %v", a.Proof, a.Sources[0].Chain)
			}
			if a.TTL != time.Minute || len(a.Events) != 0 || !a.Fresh.StaleSince.IsZero() {
				t.Errorf("ttl %v, events %v, %+v", a.TTL, a.Events, a.Fresh)
			}
			// Prefixes of modules exist and have no versions; others don't exist.
			if a, err := d.Ask(t.Context(), "example.org"); err != nil || len(a.Versions) != 0 {
				t.Errorf("prefix: %+v, %v", a.Versions, err)
			}
			_, err = d.Ask(t.Context(), "example.org/nothing")
			var nf *NotFoundError
			if !errors.As(err, &nf) || nf.Name != "nothing._.example.org.v0."+testZone || !errors.Is(err, ErrNotFound) {
				t.Errorf("unknown module: %v", err)
			}
		})
	}
}

func TestAskPinned(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	key := tr.Zone.Key
	for _, tc := range []struct{ name, text string }{
		{"DS", key.ToDS(dns.SHA256).String()},
		{"DS SHA-384", key.ToDS(dns.SHA384).String()},
		{"DNSKEY", key.String()},
		{"delv, static-ds", `trust-anchors { "l.upkeep.test." static-ds ` + strings.Join(strings.Fields(key.ToDS(dns.SHA256).String())[4:7], " ") + ` "` + key.ToDS(dns.SHA256).Digest + `"; };`},
		{"delv, static-key", "# comment\ntrust-anchors {\n l.upkeep.test. initial-key 257 3 13 \"" + key.PublicKey[:20] + "\n  " + key.PublicKey[20:] + "\"; // end\n};\n"},
		{"trusted-keys", `trusted-keys { l.upkeep.test 257 3 13 "` + key.PublicKey + `"; };`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := discoverer(t, tr, func(c *Config, _ *Options) {
				if err := os.WriteFile(c.Anchor, []byte(tc.text), 0o600); err != nil {
					t.Fatal(err)
				}
				c.Sources = []string{"server://" + tr.Addr}
			})
			a, err := d.Ask(t.Context(), hello)
			if err != nil || join(a.Versions) != "v1.0.1 v0.3.0" || len(a.Sources[0].Chain) != 1 {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// The number of messages is that of the questions: nothing is asked twice, and
// a warm client asks for the three records only.
func TestExchanges(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = []string{"tcp://" + tr.Addr} })
	a, err := d.Ask(t.Context(), hello)
	if err != nil || a.Sources[0].Exchanges != 1+3*2+3 {
		t.Errorf("cold: %d messages, %v", a.Sources[0].Exchanges, err)
	}
	a, err = d.Ask(t.Context(), hello)
	if err != nil || a.Sources[0].Exchanges != 3 {
		t.Errorf("warm: %d messages, %v", a.Sources[0].Exchanges, err)
	}
}

// Keys that were verified are used for as long as their TTL says: of a chain
// the shortest counts, which here is that of the proof that upkeep.test. is no
// zone of its own.
func TestKeysExpire(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	type step struct {
		after    time.Duration
		messages int
	}
	for _, tc := range []struct {
		name   string
		anchor *dns.DNSKEY
		steps  []step
	}{
		{"chain", tr.Root.Key, []step{{0, 10}, {30 * time.Second, 3}, {59 * time.Second, 3}, {61 * time.Second, 10}, {62 * time.Second, 3}}},
		{"pinned", tr.Zone.Key, []step{{0, 4}, {59 * time.Minute, 3}, {61 * time.Minute, 4}, {62 * time.Minute, 3}}},
	} {
		now := epoch
		d := discoverer(t, tr, func(c *Config, o *Options) {
			c.Sources, c.Anchor, o.Now = []string{"tcp://" + tr.Addr}, anchorFile(t, tc.anchor.ToDS(dns.SHA256)), func() time.Time { return now }
		})
		for _, s := range tc.steps {
			now = epoch.Add(s.after)
			if a, err := d.Ask(t.Context(), hello); err != nil || a.Sources[0].Exchanges != s.messages {
				t.Errorf("%s, after %v: %d messages, want %d; %v", tc.name, s.after, a.Sources[0].Exchanges, s.messages, err)
			}
		}
	}
}

// With trust = "resolver" the AD bit of a resolver on loopback is believed, and
// nothing without it.
func TestTrustResolver(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	ad := true
	tr.Mu.Lock()
	tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg {
		m.AuthenticatedData = ad
		m.Answer = slices.DeleteFunc(m.Answer, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeRRSIG })
		return m
	}
	tr.Mu.Unlock()
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Trust = TrustResolver })
	a, err := d.Ask(t.Context(), hello)
	if err != nil || join(a.Versions) != "v1.0.1 v0.3.0" || a.Sources[0].Exchanges != 3 || !strings.Contains(a.Proof, "AD bit") {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := d.Ask(t.Context(), "example.org/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown module: %v", err)
	}
	tr.Mu.Lock()
	ad = false
	tr.Mu.Unlock()
	_, err = d.Ask(t.Context(), hello)
	if bogusKind(err) != NotAuthenticated {
		t.Errorf("without the AD bit: %v", err)
	}
}

type fakeFallback struct{ err error }

func (f fakeFallback) Versions(context.Context, string) ([]name.Entry, error) {
	return []name.Entry{{Version: "v1.0.7"}}, f.err
}
func (fakeFallback) Describe() string { return "a list" }

// The fallback is told, and never hides an attack or a denial.
func TestFallback(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	with := func(f fakeFallback) *Discoverer {
		return discoverer(t, tr, func(c *Config, o *Options) {
			c.Fallback, o.Fallback = true, f
		})
	}
	d := with(fakeFallback{})
	if a, err := d.Ask(t.Context(), hello); err != nil || a.Fallback {
		t.Errorf("not needed: %+v, %v", a, err)
	}
	if _, err := d.Ask(t.Context(), "example.org/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a denial: %v", err)
	}
	tr.Mu.Lock()
	tr.Attack = func(_ dns.Question, m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeServerFailure; return m }
	tr.Mu.Unlock()
	a, err := d.Ask(t.Context(), hello)
	if err != nil || !a.Fallback || join(a.Versions) != "v1.0.7" || a.Source != "module proxy" || a.Proof != "a list" || a.Fresh.StaleSince.IsZero() {
		t.Errorf("%+v, %v", a, err)
	}
	if len(a.Events) != 2 || a.Events[0].Kind != EventUnreachable || a.Events[1].Kind != EventFallback {
		t.Errorf("events %+v", a.Events)
	}
	if _, err := with(fakeFallback{errors.New("proxy is down")}).Ask(t.Context(), hello); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "proxy is down") {
		t.Errorf("both fail: %v", err)
	}
}

// Without a zone the module proxy is all there is, by configuration.
func TestProxyOnly(t *testing.T) {
	for _, tc := range []fakeFallback{{}, {errors.New("proxy is down")}} {
		cfg := DefaultConfig()
		cfg.Fallback = true
		d, err := New(cfg, Options{Fallback: tc, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		a, err := d.Ask(t.Context(), hello)
		if !errors.Is(err, tc.err) || (err == nil) != a.Fresh.StaleSince.IsZero() || err == nil && (join(a.Versions) != "v1.0.7" || !a.Fallback || len(a.Events) != 0) {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// A program's own record, in a zone of its own below the root.
func TestUpdates(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	tr.Mu.Lock()
	own := zonetest.NewZone(t, "example.", dns.ED25519, "nsec")
	own.Add(zonetest.RR(t, `_updates.hello.example. 60 IN TXT "v=UPDATES0; l=v1.0.4"`))
	own.Add(zonetest.RR(t, `_updates.other.example. 60 IN TXT "v=UPDATES0; l=v2.0.0"`))
	own.Add(zonetest.RR(t, `_updates.bad.example. 60 IN TXT "v=spf1 -all"`))
	tr.Zones = append(tr.Zones, own)
	tr.Root.Delegate(t, own, false)
	tr.Mu.Unlock()
	for _, tc := range []struct{ domain, want, says string }{
		{"hello.example", "v1.0.4", ""},
		{"other.example", "", "not a release of this module"},
		{"bad.example", "", "not of the format"},
		{"none.example", "", "not found"},
	} {
		d := discoverer(t, tr, func(c *Config, _ *Options) { c.Zone, c.Updates = "", tc.domain })
		a, err := d.Ask(t.Context(), hello)
		if join(a.Versions) != tc.want || (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %+v, %v", tc.domain, a.Versions, err)
		}
		if tc.want != "" && !strings.Contains(a.Proof, "example (key ") {
			t.Errorf("proof %q", a.Proof)
		}
	}
}

// A source that shows another log of the same size leaves evidence.
func TestForkedSource(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	dir := t.TempDir()
	var log bytes.Buffer
	d := discoverer(t, tr, func(_ *Config, o *Options) { o.Dir, o.Logger = dir, slog.New(slog.NewTextHandler(&log, nil)) })
	if _, err := d.Ask(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	tr.Mu.Lock()
	tr.Zone.Set(&dns.TXT{Hdr: dns.RR_Header{Name: name.Status(testZone), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
		Txt: []string{name.StatusText{Size: 100, Hash: [32]byte{9}, At: epoch}.Format()}})
	tr.Mu.Unlock()
	a, err := d.Ask(t.Context(), hello)
	if !errors.Is(err, ErrStale) || len(a.Events) != 1 || a.Events[0].Kind != EventConflict || len(a.Events[0].Files) != 1 {
		t.Fatalf("%v, %+v", err, a.Events)
	}
	if text := readFile(t, a.Events[0].Files[0]); !strings.Contains(text, `"size": 100`) || strings.Count(text, `"Wire"`) != 3 {
		t.Error(text)
	}
	// Further polls find the same: nothing more is written or logged, and each counts.
	first := a.Events[0].Files[0]
	for range 3 {
		if a, _ = d.Ask(t.Context(), hello); len(a.Events) != 1 || !slices.Equal(a.Events[0].Files, []string{first}) {
			t.Fatalf("%+v", a.Events)
		}
	}
	if files, err := os.ReadDir(filepath.Dir(first)); err != nil || len(files) != 1 {
		t.Errorf("%d files of evidence, %v", len(files), err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d lines of the log:\n%s", n, log.String())
	}
	if n := d.m.events.With(EventConflict).Value(); n != 4 {
		t.Errorf("%v events counted", n)
	}
}

// Each source says when it was last good, also when another one is not.
func TestLastSuccess(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	path := tr.NewPath(t)
	path.SetAttack(func(_ dns.Question, m *dns.Msg) *dns.Msg { return zonetest.Unsigned(m) })
	d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = append(c.Sources, "tcp://"+path.Addr) })
	if _, err := d.Ask(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	good, bad := d.m.good.With(testZone, "udp://"+tr.Addr).Value(), d.m.good.With(testZone, "tcp://"+path.Addr).Value()
	if good != float64(epoch.Unix()) || bad != 0 {
		t.Errorf("%v and %v, want %v and 0", good, bad, epoch.Unix())
	}
}

// Two operators of the same index, each with a zone and a key of its own.
func TestTwoZones(t *testing.T) {
	one, two := zonetest.New(t, zonetest.Fast), zonetest.New(t, zonetest.Fast)
	anchor := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(anchor, []byte(two.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	d := discoverer(t, one, func(c *Config, _ *Options) {
		c.Cache = cache
		c.Also, c.Agree = []Zone{{Zone: testZone, Sources: []string{"udp://" + two.Addr}, Anchor: anchor}}, 2
	})
	a, err := d.Ask(t.Context(), hello)
	if err != nil || join(a.Versions) != "v1.0.1 v0.3.0" || !strings.Contains(a.Proof, "2 sources agree") {
		t.Fatalf("%+v, %v", a, err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("%d messages are shared, %v: one who writes there would be two sources", len(left), err)
	}
	// One of them alone cannot bring in a version.
	two.Publish(t, 200, epoch, "v1.0.66", "v0.3.0")
	a, err = d.Ask(t.Context(), hello)
	if err != nil || join(a.Versions) != "v0.3.0" {
		t.Errorf("%+v, %v", a.Versions, err)
	}
	if len(a.Events) != 1 || a.Events[0].Kind != EventVanished {
		t.Errorf("events %+v", a.Events)
	}
}
