package dnsserver

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
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

// BenchmarkMissing makes one signature for each answer.
func BenchmarkMissing(b *testing.B) {
	h := testHandler(b, testConfig(), testIndex())
	b.ReportAllocs()
	for i := range b.N {
		packet, _ := question(fmt.Sprintf("x%d._.github.com.v0.%s", i, testZone), dns.TypeTXT, true).Pack()
		if out, _ := h.Respond(nil, packet, client, true); len(out) == 0 {
			b.Fatal("no answer")
		}
	}
}

func BenchmarkMissingPlain(b *testing.B) {
	h := testHandler(b, testConfig(), testIndex())
	b.ReportAllocs()
	for i := range b.N {
		packet, _ := question(fmt.Sprintf("x%d._.github.com.v0.%s", i, testZone), dns.TypeTXT, false).Pack()
		if out, _ := h.Respond(nil, packet, client, true); len(out) == 0 {
			b.Fatal("no answer")
		}
	}
}

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
		out = h.appendTruncated(out[:0], &q)
	}
}

// An answer from the cache allocates nothing.
func TestCachedAllocates(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	packet, _ := question(moxName, dns.TypeTXT, true).Pack()
	out, _ := h.Respond(make([]byte, 0, 2048), packet, client, true)
	var q query
	now := h.now()
	if n := testing.AllocsPerRun(100, func() {
		h.respond(out[:0], packet, client, &q, now, signing)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
