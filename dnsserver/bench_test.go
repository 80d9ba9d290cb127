package dnsserver

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

func benchmark(b *testing.B, do bool, packets [][]byte) {
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
	benchmark(b, true, [][]byte{packet})
}

func BenchmarkCachedPlain(b *testing.B) {
	packet, _ := question(moxName, dns.TypeTXT, false).Pack()
	benchmark(b, false, [][]byte{packet})
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
