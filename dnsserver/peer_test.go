package dnsserver

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/tlog/index"
)

const testZone = "l.upkeep.test."

func testConfig() ZoneConfig {
	cfg := DefaultZoneConfig()
	cfg.Zone = testZone
	cfg.NameServers = []NameServer{{Name: "ns0", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}, {Name: "ns1.example.net."}}
	cfg.Records = []string{`@ CAA 0 issue "ca.example.net"`, "www A 192.0.2.2", "a.b.c TXT deep", "@ MX 10 mail.example.net."}
	cfg.NSID = "one"
	return cfg
}

func testIndex() *memindex.Index {
	idx := memindex.New()
	many := index.Module{Path: "example.org/many"}
	for i := 40; i > 0; i-- {
		many.Majors = append(many.Majors, index.Version{Version: "v" + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ".0.0", Time: 0x60000000})
	}
	idx.SetToolchains(index.Toolchain{Version: "go1.27.4", Kind: "cur", Time: 0x6b000000}, index.Toolchain{Version: "go1.26.11", Kind: "prev", Time: 0x6a000000})
	idx.Set(memindex.Head(71848828),
		memindex.Release("github.com/mjl-/mox", "v0.0.15", 0x66fa7e15),
		index.Module{Path: "github.com/BurntSushi/toml", Majors: []index.Version{{Version: "v2.0.0+incompatible", Time: 2}, {Version: "v1.5.0", Time: 1}}},
		index.Module{Path: "github.com/untagged/mod", Pseudo: &index.Version{Version: "v0.0.0-20200101000000-abcdefabcdef"}},
		memindex.Release("github.com/a/b/c/v2", "v2.0.0", 1),
		memindex.Release("gocloud.dev", "v0.40.0", 0x60000000),
		many,
	)
	return idx
}

func testKeys(t testing.TB, algorithm string) []*Key {
	t.Helper()
	dir := t.TempDir()
	if _, err := GenerateKey(dir, testZone, algorithm, true, Timing{}); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(dir, testZone)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func testHandler(t testing.TB, cfg ZoneConfig, idx index.Reader) *Handler {
	t.Helper()
	h, err := NewHandler(cfg, testKeys(t, "ecdsap256sha256"), idx, Options{Limits: Limits{Answers: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func question(name string, typ uint16, do bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.Id = 0x1234
	if do {
		m.SetEdns0(4096, true)
	}
	return m
}

var client = Client{netip.MustParseAddrPort("198.51.100.7:4711"), UDP}

// exchange asks the handler, by packets, and checks the answer.
func exchange(t testing.TB, h *Handler, m *dns.Msg, c Client) *dns.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, ok := h.Respond(nil, packet, c, true)
	if !ok || len(out) == 0 {
		t.Fatalf("no answer to\n%v", m)
	}
	cached, _ := h.Respond(nil, packet, c, true)
	if !bytes.Equal(out, cached) {
		t.Fatalf("the second answer differs:\n%x\n%x", out, cached)
	}
	return judge(t, h, packet, out, c)
}

// with is the configuration with a way of denial.
func with(denial string) ZoneConfig {
	cfg := testConfig()
	cfg.Denial = denial
	return cfg
}
