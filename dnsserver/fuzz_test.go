package dnsserver

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

var fuzzHandler = sync.OnceValues(func() (*Handler, error) {
	dir, err := os.MkdirTemp("", "upkeep-fuzz")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// Ed25519 signs faster, and what is tested is not the signature.
	if _, err := GenerateKey(dir, testZone, "ed25519", true, Timing{}); err != nil {
		return nil, err
	}
	keys, err := LoadKeys(dir, testZone)
	if err != nil {
		return nil, err
	}
	cfg := testConfig()
	cfg.StaleAfter = 0
	for range 20 {
		cfg.Records = append(cfg.Records, "big TXT "+strings.Repeat("x", 40+len(cfg.Records)))
	}
	return NewHandler(cfg, keys, testIndex(), Options{Answers: 4096})
})

func seeds(f *testing.F) {
	add := func(m *dns.Msg) {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet, true)
		f.Add(packet, false)
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
}

// FuzzRespond sends any packet and judges the answer without knowing how it
// came about: it unpacks, fits, repeats the question, has true bitmaps and
// signatures that verify, and the same again comes from the cache.
func FuzzRespond(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, packet []byte, udp bool) {
		h, err := fuzzHandler()
		if err != nil {
			t.Fatal(err)
		}
		if len(packet) > maxSize {
			return
		}
		c := client
		if !udp {
			c.Transport = TLS
		}
		out, ok := h.Respond(nil, packet, c, true)
		if !ok {
			t.Fatal("not answered")
		}
		if len(out) == 0 {
			if len(packet) >= headerLen && packet[2]&0x80 == 0 {
				t.Fatalf("no answer to the query %x", packet)
			}
			return
		}
		judge(t, h, packet, out, c)
		if again, _ := h.Respond(nil, packet, c, false); len(again) != len(out) {
			t.Fatalf("the second answer has %d bytes, the first %d", len(again), len(out))
		}
	})
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
