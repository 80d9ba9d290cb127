package dnsserver

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/tlog/index"
)

func benchmark(b *testing.B, packets [][]byte) {
	h := testHandler(b, testConfig(), testIndex())
	var q query
	out := make([]byte, 0, 2048)
	now := h.now()
	for _, p := range packets {
		h.Respond(nil, p, client, true)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if out, _ = h.respond(out[:0], packets[i%len(packets)], client, &q, now, signing); len(out) == 0 {
			b.Fatal("no answer")
		}
	}
}

func BenchmarkCached(b *testing.B) {
	packet, _ := question(moxName, dns.TypeTXT, true).Pack()
	benchmark(b, [][]byte{packet})
}

func BenchmarkCachedPlain(b *testing.B) {
	packet, _ := question(moxName, dns.TypeTXT, false).Pack()
	benchmark(b, [][]byte{packet})
}

// benchmarkMissing asks for names that don't exist, each once.
func benchmarkMissing(b *testing.B, do bool) {
	h := testHandler(b, testConfig(), testIndex())
	packet, _ := question("aaaaaaaa._.github.com.v0."+testZone, dns.TypeTXT, do).Pack()
	var q query
	out := make([]byte, 0, 2048)
	now := h.now()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		for k := range 8 {
			packet[headerLen+1+k] = 'a' + byte(i>>(4*k)&15)
		}
		if out, _ = h.respond(out[:0], packet, client, &q, now, signing); len(out) == 0 {
			b.Fatal("no answer")
		}
	}
}

// BenchmarkMissing makes one signature for each answer.
func BenchmarkMissing(b *testing.B)      { benchmarkMissing(b, true) }
func BenchmarkMissingPlain(b *testing.B) { benchmarkMissing(b, false) }

// BenchmarkTurnedAway is what a name costs that would need a signature when
// there is no more room for it.
func BenchmarkTurnedAway(b *testing.B) {
	h := testHandler(b, testConfig(), testIndex())
	var packets [][]byte
	for i := range 1000 {
		packet, _ := question(fmt.Sprintf("x%d.y%d._.github.com.v0.%s", i, i, testZone), dns.TypeTXT, true).Pack()
		packets = append(packets, packet)
	}
	var q query
	out := make([]byte, 0, 2048)
	now := h.now()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		var ok bool
		if out, ok = h.respond(out[:0], packets[i%len(packets)], client, &q, now, crowded); ok {
			b.Fatal("answered")
		}
		out = h.appendTruncated(out[:0], &q, client, now, nil)
	}
}

// What was answered before allocates nothing, and the denial of a name not much
// beside its signature.
func TestCachedAllocates(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	for _, tc := range []struct {
		name string
		do   bool
	}{{moxName, true}, {moxName, false}, {"missing._.github.com.v0." + testZone, true}, {"missing._.github.com.v0." + testZone, false}} {
		packet, _ := question(tc.name, dns.TypeTXT, tc.do).Pack()
		out, _ := h.Respond(make([]byte, 0, 2048), packet, client, true)
		var q query
		now := h.now()
		if n := testing.AllocsPerRun(100, func() {
			h.respond(out[:0], packet, client, &q, now, signing)
		}); n != 0 {
			t.Errorf("%s, DO %v: %v allocations", tc.name, tc.do, n)
		}
	}
}

// BenchmarkMissingChain asks for names that nobody asked for, all over a zone of
// 100,000 modules whose chain was signed before.
func BenchmarkMissingChain(b *testing.B) {
	idx := memindex.New()
	var mods []index.Module
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		mods = append(mods, memindex.Release(fmt.Sprintf("github.com/owner%x/module%x", r.IntN(1<<30), r.IntN(1<<30)), "v1.0.0", 1))
	}
	idx.Set(memindex.Head(100_000), mods...)
	h, err := NewHandler(with(DenialNSEC), testKeys(b, "ed25519"), idx, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var packets [][]byte
	for range 200_000 {
		packet, err := question(fmt.Sprintf("module%x.owner%x._.github.com.v0.%s", r.IntN(1<<30), r.IntN(1<<30), testZone), dns.TypeTXT, true).Pack()
		if err != nil {
			b.Fatal(err)
		}
		packets = append(packets, packet)
		h.Respond(nil, packet, client, true)
	}
	var q query
	out := make([]byte, 0, 2048)
	now := h.now()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		var ok bool
		if out, ok = h.respond(out[:0], packets[i%len(packets)], client, &q, now, atOnce); !ok {
			b.Fatal("not signed")
		}
	}
}
