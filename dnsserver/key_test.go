package dnsserver

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestGenerateAndLoad(t *testing.T) {
	for _, alg := range []string{"ecdsap256sha256", "ED25519"} {
		dir := t.TempDir()
		now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
		k, err := GenerateKey(dir, "L.upkeep.test", alg, true, Timing{Created: now, Activate: now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(k.File + ".private")
		if err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("the private key's file: %v, %v", fi.Mode(), err)
		}
		keys, err := LoadKeys(dir, testZone)
		if err != nil || len(keys) != 1 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		got := keys[0]
		if got.Tag != k.Tag || !got.SEP() || got.Timing != k.Timing || got.DS().String() != k.DS().String() {
			t.Errorf("read %+v; wrote %+v", got, k)
		}
	}
}

// Files that dnssec-keygen of BIND 9.18 wrote.
func TestBINDFiles(t *testing.T) {
	keys, err := LoadKeys("testdata/bind", "bind.example.")
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, k := range keys {
		if k.Activate.IsZero() || k.State(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) != "active" {
			t.Errorf("%+v", k)
		}
	}
}

func TestKeyFileErrors(t *testing.T) {
	dir := t.TempDir()
	a, err := GenerateKey(dir, testZone, "ecdsap256sha256", true, Timing{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := GenerateKey(t.TempDir(), testZone, "ecdsap256sha256", true, Timing{})
	if err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(a.File + ".private")
	other, _ := os.ReadFile(b.File + ".private")
	for _, tc := range []struct{ name, private, want string }{
		{"another key's private file", string(other), "not the public key's"},
		{"empty", "", "private"},
		{"no number", strings.Replace(string(good), "PrivateKey: ", "PrivateKey: !", 1), "private"},
		{"a bad time", string(good) + "Activate: tomorrow\n", "Activate"},
		{"too long", strings.Repeat("x", maxKeyFile+1), "bytes"},
	} {
		if err := os.WriteFile(a.File+".private", []byte(tc.private), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := LoadKeys(dir, testZone); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v; want %q", tc.name, keys, err, tc.want)
		}
	}
	os.Remove(a.File + ".private")
	if _, err := LoadKeys(dir, testZone); !errors.Is(err, ErrNoKeys) {
		t.Errorf("a public key alone: %v", err)
	}
	if _, err := LoadKeys(filepath.Join(dir, "missing"), testZone); !errors.Is(err, ErrNoKeys) {
		t.Errorf("no folder: %v", err)
	}
	os.WriteFile(a.File+".key", []byte("l.upkeep.test. IN DNSKEY 257 3 13 !!!!\n"), 0o644)
	if _, err := LoadKeys(dir, testZone); err == nil || !strings.Contains(err.Error(), "base64") {
		t.Errorf("no base64 in a public key: %v", err)
	}
	os.WriteFile(a.File+".key", []byte("l.upkeep.test. IN A 192.0.2.1\n"), 0o644)
	if _, err := LoadKeys(dir, testZone); err == nil || errors.Is(err, ErrNoKeys) {
		t.Errorf("no DNSKEY in the file: %v", err)
	}
}

// Which keys are shown, which sign, and which the parent is asked to name.
func TestRollover(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().Truncate(time.Second)
	gen := func(sep bool, alg string, timing Timing) *Key {
		k, err := GenerateKey(dir, testZone, alg, sep, timing)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ksk := gen(true, "ecdsap256sha256", Timing{})
	zsk := gen(false, "ecdsap256sha256", Timing{Inactive: now.Add(24 * time.Hour), Delete: now.Add(48 * time.Hour)})
	next := gen(false, "ecdsap256sha256", Timing{Publish: now.Add(12 * time.Hour), Activate: now.Add(24 * time.Hour)})
	foreign, err := GenerateKey(t.TempDir(), testZone, "ecdsap256sha256", false, Timing{})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(foreign.File + ".key")
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(foreign.File)+".key"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(dir, testZone)
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	clock := now
	cfg := testConfig()
	cfg.StaleAfter = 0
	h, err := NewHandler(cfg, keys, testIndex(), Options{Limits: Limits{Answers: 64}, Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	signers := func(name string, typ uint16) (tags []uint16) {
		packet, _ := question(name, typ, true).Pack()
		out, _ := h.Respond(nil, packet, Client{client.Addr, TCP}, true)
		var r dns.Msg
		if err := r.Unpack(out); err != nil {
			t.Fatal(err)
		}
		for _, rr := range r.Answer {
			if sig, ok := rr.(*dns.RRSIG); ok {
				tags = append(tags, sig.KeyTag)
			}
		}
		return tags
	}
	published := func() map[uint16]bool {
		tags := map[uint16]bool{}
		packet, _ := question(testZone, dns.TypeDNSKEY, false).Pack()
		out, _ := h.Respond(nil, packet, Client{client.Addr, TCP}, true)
		var r dns.Msg
		if err := r.Unpack(out); err != nil {
			t.Fatal(err)
		}
		for _, rr := range r.Answer {
			tags[rr.(*dns.DNSKEY).KeyTag()] = true
		}
		return tags
	}
	const mox = "mox.mjl_2d._.github.com.v0." + testZone
	for _, tc := range []struct {
		after  time.Duration
		shown  []*Key
		signer *Key
	}{
		{0, []*Key{ksk, zsk, foreign}, zsk},
		{13 * time.Hour, []*Key{ksk, zsk, next, foreign}, zsk},
		{25 * time.Hour, []*Key{ksk, zsk, next, foreign}, next},
		{49 * time.Hour, []*Key{ksk, next, foreign}, next},
	} {
		clock = now.Add(tc.after)
		if err := h.refresh(false); err != nil {
			t.Fatal(err)
		}
		shown := published()
		for _, k := range tc.shown {
			if !shown[k.Tag] {
				t.Errorf("after %s: key %d is not published", tc.after, k.Tag)
			}
		}
		if len(shown) != len(tc.shown) {
			t.Errorf("after %s: published %v", tc.after, shown)
		}
		if got := signers(mox, dns.TypeTXT); len(got) != 1 || got[0] != tc.signer.Tag {
			t.Errorf("after %s: %v sign; want %d", tc.after, got, tc.signer.Tag)
		}
		if got := signers(testZone, dns.TypeDNSKEY); len(got) != 1 || got[0] != ksk.Tag {
			t.Errorf("after %s: %v sign the keys; want %d", tc.after, got, ksk.Tag)
		}
		if got := signers(testZone, dns.TypeCDS); len(got) != 0 {
			t.Errorf("after %s: the parent is asked to name our key alone", tc.after)
		}
	}
	reload := func() {
		t.Helper()
		if keys, err = LoadKeys(dir, testZone); err != nil {
			t.Fatal(err)
		}
		if err := h.Reload(cfg, keys, h.view.Load().limits); err != nil {
			t.Fatal(err)
		}
	}
	// A second key of the same kind signs beside the first; with an algorithm of its
	// own also the data.
	second := gen(true, "ed25519", Timing{})
	reload()
	if got := signers(mox, dns.TypeTXT); len(got) != 2 || got[0] != second.Tag && got[1] != second.Tag {
		t.Errorf("%v sign; want two", got)
	}
	if got := signers(testZone, dns.TypeDNSKEY); len(got) != 2 || got[0] != second.Tag && got[1] != second.Tag {
		t.Errorf("%v sign the keys; want two", got)
	}
	// The parent is asked to name the keys of all operators, or for nothing.
	foreign, err = GenerateKey(t.TempDir(), testZone, "ecdsap256sha256", true, Timing{})
	if err != nil {
		t.Fatal(err)
	}
	data, _ = os.ReadFile(foreign.File + ".key")
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(foreign.File)+".key"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	reload()
	packet, _ := question(testZone, dns.TypeCDS, true).Pack()
	out, _ := h.Respond(nil, packet, Client{client.Addr, TCP}, true)
	var r dns.Msg
	if err := r.Unpack(out); err != nil {
		t.Fatal(err)
	}
	asked := map[uint16]bool{}
	for _, rr := range r.Answer {
		if cds, ok := rr.(*dns.CDS); ok {
			asked[cds.KeyTag] = true
		}
	}
	if len(asked) != 3 || !asked[ksk.Tag] || !asked[second.Tag] || !asked[foreign.Tag] {
		t.Errorf("the parent is asked to name %v", asked)
	}
}

// Signatures are renewed long before they end, and made once until then.
func TestRefresh(t *testing.T) {
	clock := time.Now()
	cfg := testConfig()
	cfg.StaleAfter = 0
	h, err := NewHandler(cfg, testKeys(t, "ed25519"), testIndex(), Options{Limits: Limits{Answers: 64}, Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	var last dns.RRSIG
	packet, _ := question(testZone, dns.TypeNS, true).Pack()
	for range 15 * 24 {
		out, _ := h.Respond(nil, packet, client, true)
		var r dns.Msg
		if err := r.Unpack(out); err != nil {
			t.Fatal(err)
		}
		sig := r.Answer[len(r.Answer)-1].(*dns.RRSIG)
		if left := time.Unix(int64(sig.Expiration), 0).Sub(clock); left < 6*24*time.Hour {
			t.Fatalf("%s are left", left)
		}
		if valid := clock.Sub(time.Unix(int64(sig.Inception), 0)); valid < 3*time.Hour {
			t.Fatalf("valid for %s only: not for a resolver whose clock is behind", valid)
		}
		last = *sig
		clock = clock.Add(time.Hour)
	}
	if n := h.stat.sigs.Load(); n > 2*5 { // NS, and addresses of two types
		t.Errorf("%d signatures in 15 days", n)
	}
	if last.Inception == 0 {
		t.Error("no signature")
	}
}

func TestBadConfig(t *testing.T) {
	for _, tc := range []struct {
		change func(*ZoneConfig)
		want   string
	}{
		{func(c *ZoneConfig) { c.Zone = "" }, "zone.name: is not set"},
		{func(c *ZoneConfig) { c.Zone = "." }, "zone.name"},
		{func(c *ZoneConfig) { c.Zone = "a..b" }, "zone.name"},
		{func(c *ZoneConfig) { c.Zone = strings.Repeat("a.", 101) }, "zone.name"},
		{func(c *ZoneConfig) { c.NameServers = nil }, "zone.nameserver"},
		{func(c *ZoneConfig) { c.NameServers[0].Addresses = nil }, "needs addresses"},
		{func(c *ZoneConfig) { c.NameServers[1].Addresses = c.NameServers[0].Addresses }, "not in the zone"},
		{func(c *ZoneConfig) { c.NameServers[0].Name = "ns 0" }, "no name of a host"},
		{func(c *ZoneConfig) { c.NameServers[0].Name = "*" }, "no name of a host"},
		{func(c *ZoneConfig) { c.NameServers[0].Name = "ns.v0" }, "index alone"},
		{func(c *ZoneConfig) { c.NameServers = append(c.NameServers, c.NameServers[0]) }, "twice"},
		{func(c *ZoneConfig) { c.NameServers[0].Addresses = []netip.Addr{netip.IPv4Unspecified()} }, "others can ask"},
		{func(c *ZoneConfig) { c.NameServers[0].Addresses = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }, "others can ask"},
		{func(c *ZoneConfig) { c.Mailbox = "nobody" }, "zone.mailbox"},
		{func(c *ZoneConfig) { c.Records = []string{"x.v0 TXT y"} }, "index alone"},
		{func(c *ZoneConfig) { c.Records = []string{"example.org. TXT y"} }, "outside"},
		{func(c *ZoneConfig) { c.Records = []string{"x CNAME y"} }, "CNAME"},
		{func(c *ZoneConfig) { c.Records = []string{"*.x TXT y"} }, "wildcard"},
		{func(c *ZoneConfig) { c.Records = []string{`\042.x TXT y`} }, "wildcard"},
		{func(c *ZoneConfig) { c.Records = []string{"y.*.x TXT y"} }, "wildcard"},
		{func(c *ZoneConfig) { c.Records = []string{"x TXT"} }, "records"},
		{func(c *ZoneConfig) { c.Records = []string{"x TXT y\nz TXT y"} }, "more than one"},
		{func(c *ZoneConfig) { c.Records = []string{"$INCLUDE /etc/passwd"} }, "records"},
		{func(c *ZoneConfig) { c.Validity = 1 }, "signature_validity"},
		{func(c *ZoneConfig) { c.TTL = 1 }, "zone.ttl"},
	} {
		cfg := testConfig()
		tc.change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v with records %q; want %q", err, cfg.Records, tc.want)
		}
	}
}

// Operators of one zone need one algorithm; a key that breaks that is named.
func TestForeignAlgorithm(t *testing.T) {
	for _, alg := range []string{"ecdsap256sha256", "ed25519"} {
		keys := testKeys(t, "ecdsap256sha256")
		foreign := *testKeys(t, alg)[0]
		foreign.signer = nil
		var log bytes.Buffer
		if _, err := NewHandler(testConfig(), append(keys, &foreign), testIndex(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
			t.Fatal(err)
		}
		want := alg == "ed25519"
		if strings.Contains(log.String(), "key="+strconv.Itoa(int(foreign.Tag))+" algorithm=ED25519") != want {
			t.Errorf("%s: %s", alg, &log)
		}
	}
}
