package dnsserver

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// fuzzOracle has a handler with each way of denial, and an oracle for it.
var fuzzOracle = map[string]func(testing.TB) *oracle{DenialCompact: newFuzzOracle(DenialCompact), DenialNSEC: newFuzzOracle(DenialNSEC)}

func newFuzzOracle(denial string) func(testing.TB) *oracle {
	var o *oracle
	return func(t testing.TB) *oracle {
		if o != nil {
			return o
		}
		dir := t.TempDir()
		// Ed25519 signs faster, and what is tested is not the signature.
		if _, err := GenerateKey(dir, testZone, "ed25519", true, Timing{}); err != nil {
			t.Fatal(err)
		}
		keys, err := LoadKeys(dir, testZone)
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig()
		cfg.StaleAfter, cfg.Denial = 0, denial
		for range 20 {
			cfg.Records = append(cfg.Records, "big TXT "+strings.Repeat("x", 40+len(cfg.Records)))
		}
		h, err := NewHandler(cfg, keys, testIndex(), Options{Limits: Limits{Answers: 1 << 14}})
		if err != nil {
			t.Fatal(err)
		}
		o = newOracle(t, h)
		return o
	}
}

func seeds(f *testing.F) {
	for _, packet := range seedPackets(f) {
		f.Add(packet, true)
		f.Add(packet, false)
	}
}

func seedPackets(t testing.TB) (packets [][]byte) {
	add := func(m *dns.Msg) {
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, packet)
	}
	for _, p := range probes() {
		add(question(p.name, dns.StringToType[p.typ], false))
		add(question(p.name, dns.StringToType[p.typ], true))
	}
	m := question("big."+testZone, dns.TypeTXT, true)
	opt := m.IsEdns0()
	opt.SetUDPSize(512)
	opt.SetCo()
	opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
		&dns.EDNS0_LOCAL{Code: dns.EDNS0ZONEVERSION}, &dns.EDNS0_LOCAL{Code: dns.EDNS0TCPKEEPALIVE}, &dns.EDNS0_PADDING{Padding: make([]byte, 3)})
	add(m)
	m = question(testZone, dns.TypeNXNAME, true)
	add(m)
	add(question("x.l.upkeep.test.example.", dns.TypeANY, true))
	return packets
}

// FuzzRespond sends any packet and judges the answer without knowing how it
// came about: it unpacks, fits, repeats the question, has true bitmaps and
// signatures that verify, and the same again comes from the cache.
func FuzzRespond(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, packet []byte, udp bool) {
		if len(packet) > maxSize {
			return
		}
		c := client
		if !udp {
			c.Transport = TLS
		}
		for _, o := range fuzzOracle {
			o(t).try(t, packet, c)
		}
	})
}

// try has a packet answered, twice, and judges the answer.
func (o *oracle) try(t testing.TB, packet []byte, c Client) {
	out, ok := o.h.Respond(o.out[:0], packet, c, true)
	if !ok {
		t.Fatalf("not answered: %x", packet)
	}
	o.out = out
	if len(out) == 0 {
		if len(packet) >= headerLen && packet[2]&0x80 == 0 {
			t.Fatalf("no answer to the query %x", packet)
		}
		return
	}
	o.judge(t, packet, out, c)
	if o.again, _ = o.h.Respond(o.again[:0], packet, c, false); len(o.again) != len(out) {
		t.Fatalf("the second answer has %d bytes, the first %d: %x", len(o.again), len(out), packet)
	}
}

// FuzzParseQuery compares our reading of a packet with a library's: what we
// take for a good query, it must read in the same way.
func FuzzParseQuery(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, packet []byte, _ bool) {
		var q query
		if parseQuery(packet, &q) != verdictAnswer || q.question == nil {
			return
		}
		var m dns.Msg
		if err := m.Unpack(packet); err != nil {
			// The library reads the data of every type; we don't.
			if len(packet) == headerLen+len(q.question) {
				t.Fatalf("%x: %v", packet, err)
			}
			return
		}
		name, err := packName(m.Question[0].Name)
		if len(m.Question) != 1 || err != nil || string(name) != string(q.name()) || m.Question[0].Qtype != q.qtype || m.Question[0].Qclass != q.class {
			t.Fatalf("%x: read %x %d %d; the library read %v (%v)", packet, q.name(), q.qtype, q.class, m.Question, err)
		}
		opt := m.IsEdns0()
		if (opt != nil) != q.edns || opt != nil && (opt.Do() != q.do || opt.UDPSize() != q.size || opt.Version() != q.version) {
			t.Fatalf("%x: EDNS %+v; the library read %v", packet, q.edns, opt)
		}
	})
}
