package dnsserver

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestLimiter(t *testing.T) {
	start := time.Now()
	l := newLimiter(RateConfig{Answers: 10, Denials: 5, Slip: 2}, start)
	addr := netip.MustParseAddr
	type ask struct {
		addr     string
		cat      category
		question uint64
	}
	// sent counts the answers of n that are sent, spread over a time.
	sent := func(a ask, n int, from, over time.Duration) (ok, tc int) {
		for i := range n {
			switch l.decide(addr(a.addr), a.cat, a.question, start.Add(from+over*time.Duration(i)/time.Duration(n)), uint16(i)) {
			case decideSend:
				ok++
			case decideTruncate:
				tc++
			}
		}
		return ok, tc
	}
	between := func(what string, got, low, high int) {
		t.Helper()
		if got < low || got > high {
			t.Errorf("%s: %d; want %d to %d", what, got, low, high)
		}
	}
	ok, tc := sent(ask{"192.0.2.1", catAnswer, 1}, 1000, 0, 0)
	between("a burst", ok, 10, 12)
	between("slip", tc, 480, 500)
	ok, _ = sent(ask{"192.0.2.200", catAnswer, 1}, 100, 0, 0)
	between("the same network", ok, 0, 0)
	ok, _ = sent(ask{"192.0.3.1", catAnswer, 1}, 5, 0, 0)
	between("another network", ok, 5, 5)
	ok, _ = sent(ask{"192.0.2.1", catAnswer, 2}, 5, 0, 0)
	between("another question", ok, 5, 5)
	ok, _ = sent(ask{"192.0.2.1", catDenial, 2}, 50, 0, 0)
	between("denials", ok, 5, 6)
	ok, _ = sent(ask{"192.0.2.1", catDenial, 3}, 50, 0, 0)
	between("denials of another name", ok, 0, 0)
	ok, _ = sent(ask{"192.0.2.1", catError, 0}, 500, 0, 0)
	between("no limit", ok, 500, 500)
	ok, _ = sent(ask{"2001:db8:0:11::1", catAnswer, 1}, 100, 0, 0)
	between("IPv6", ok, 10, 12)
	ok, _ = sent(ask{"2001:db8:0:12::1", catAnswer, 1}, 100, 0, 0)
	between("the same /56", ok, 0, 0)
	ok, _ = sent(ask{"2001:db8:0:100::1", catAnswer, 1}, 5, 0, 0)
	between("another /56", ok, 5, 5)
	ok, _ = sent(ask{"192.0.2.1", catAnswer, 1}, 1000, 2*time.Second, 10*time.Second)
	between("ten seconds later, over ten seconds", ok, 100, 112)
}

func TestRateLimit(t *testing.T) {
	now := time.Now()
	h, err := NewHandler(testConfig(), testKeys(t, "ecdsap256sha256"), testIndex(), Options{Limits: Limits{Answers: 64, Rate: RateConfig{Answers: 10, Slip: 2}}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	flood := func(m *dns.Msg, c Client) (full, tc int) {
		for i := range 200 {
			m.Id = uint16(i)
			packet, _ := m.Pack()
			out, _ := h.Respond(nil, packet, c, true)
			if len(out) == 0 {
				continue
			}
			if r := judge(t, h, packet, out, c); r.Truncated {
				tc++
			} else {
				full++
			}
		}
		return full, tc
	}
	m := question(moxName, dns.TypeTXT, true)
	opt := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	m.IsEdns0().Option = append(m.IsEdns0().Option, opt)
	packet, _ := m.Pack()
	out, _ := h.Respond(nil, packet, client, true)
	opt.Cookie = options(judge(t, h, packet, out, client))[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE).Cookie
	if full, tc := flood(question(moxName, dns.TypeTXT, true), client); full > 12 || tc < 90 || tc > 100 {
		t.Errorf("a flood: %d answers, %d truncated", full, tc)
	}
	if full, _ := flood(question(moxName, dns.TypeTXT, true), Client{client.Addr, TCP}); full != 200 {
		t.Errorf("over TCP: %d answers", full)
	}
	if full, _ := flood(m, client); full != 200 {
		t.Errorf("with a cookie: %d answers", full)
	}
	last := "00"
	if opt.Cookie[46:] == last {
		last = "01"
	}
	opt.Cookie = opt.Cookie[:46] + last
	if full, _ := flood(m, client); full > 1 {
		t.Errorf("with a forged cookie: %d answers", full)
	}
	if h.stat.limited.Load() == 0 {
		t.Error("nothing was counted as limited")
	}
}

// A query that has to wait for a signature is counted once.
func TestRateLimitWaiting(t *testing.T) {
	h, err := NewHandler(testConfig(), testKeys(t, "ecdsap256sha256"), testIndex(), Options{Limits: Limits{Answers: 64, Rate: RateConfig{Denials: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	var q query
	now := h.now()
	for i, want := range []bool{true, true, false} { // two are a second's worth and one
		packet, err := question(fmt.Sprintf("x%d.%s", i, testZone), dns.TypeTXT, true).Pack()
		if err != nil {
			t.Fatal(err)
		}
		out, done := h.respond(nil, packet, client, &q, now, atOnce)
		if done == want || len(out) > 0 {
			t.Errorf("query %d: done %v, %d bytes, before its signature was made", i, done, len(out))
		}
		if done {
			continue
		}
		if out, _ = h.respond(nil, packet, client, &q, now, queued); len(out) == 0 {
			t.Errorf("query %d is not answered", i)
		}
	}
}

// In the place of an answer above the limit comes one that is the same but for its
// records: no authority about other zones, and the cookie that lifts the limit.
func TestRateLimitInstead(t *testing.T) {
	for _, tc := range []struct {
		name  string
		query *dns.Msg
		rcode int
	}{
		{"an answer", question(moxName, dns.TypeTXT, true), dns.RcodeSuccess},
		{"another zone", question("example.org.", dns.TypeTXT, true), dns.RcodeRefused},
		{"a zone transfer", question(testZone, dns.TypeAXFR, true), dns.RcodeRefused},
	} {
		now := time.Now()
		h, err := NewHandler(testConfig(), testKeys(t, "ed25519"), testIndex(), Options{Limits: Limits{Answers: 64, Rate: RateConfig{Answers: 1, Errors: 1, Slip: 1}}, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		cookie := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
		tc.query.IsEdns0().Option = append(tc.query.IsEdns0().Option, cookie)
		ask := func() *dns.Msg {
			packet, _ := tc.query.Pack()
			out, _ := h.Respond(nil, packet, client, true)
			return judge(t, h, packet, out, client)
		}
		r := ask()
		for range 10 {
			r = ask()
		}
		ours, ok := options(r)[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE)
		if !r.Truncated || r.Rcode != tc.rcode || r.Authoritative != (tc.rcode == dns.RcodeSuccess) || !ok {
			t.Fatalf("%s: %v", tc.name, r)
		}
		cookie.Cookie = ours.Cookie
		if r := ask(); r.Truncated {
			t.Errorf("%s, with the cookie: %v", tc.name, r)
		}
	}
}
