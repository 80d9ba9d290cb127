package dnsserver

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Each query that RFC 8906, section 8 recommends to test a server with, and
// what it says is to be seen in the answer. Those of 8.1.5 are all of them over
// TCP.
func TestRFC8906(t *testing.T) {
	cfg := testConfig()
	for range 30 {
		cfg.Records = append(cfg.Records, "big TXT "+strings.Repeat("x", 40+len(cfg.Records)))
	}
	h := testHandler(t, cfg, testIndex())
	soa := func(flags, ar uint16) *raw { return header(flags, 1, 0, 0, ar).question(testZone, dns.TypeSOA, 1) }
	const ad, z = 1 << 5, 1 << 6
	const badvers, other = dns.RcodeBadVers, "\x00\x64\x00\x02ab"
	multiple := "\x00\x0a\x00\x08abcdefgh" + "\x00\x03\x00\x00" + "\x00\x09\x00\x00" + "\x00\x08\x00\x04\x00\x01\x00\x00"
	for _, tc := range []struct {
		name  string
		query *raw
		rcode int
		soa   bool   // the SOA record is the answer
		flags uint16 // of AA, TC, RD, AD and CD
		edns  bool
	}{
		{"8.1.1 is the server configured for the zone", soa(0, 0), 0, true, flagAA, false},
		{"8.1.2 unknown types", header(0, 1, 0, 0, 0).question(testZone, 1000, 1), 0, false, flagAA, false},
		{"8.1.3.1 CD=1", soa(flagCD, 0), 0, true, flagAA | flagCD, false},
		{"8.1.3.2 AD=1", soa(ad, 0), 0, true, flagAA, false},
		{"8.1.3.3 the reserved bit", soa(z, 0), 0, true, flagAA, false},
		{"8.1.3.4 recursive queries", soa(flagRD, 0), 0, true, flagAA | flagRD, false},
		{"8.1.4 unknown opcodes", header(15<<11, 0, 0, 0, 0), dns.RcodeNotImplemented, false, 0, false},
		{"8.2.1 minimal EDNS", soa(0, 1).opt(4096, 0, 0, ""), 0, true, flagAA, true},
		{"8.2.2 EDNS version negotiation", soa(0, 1).opt(4096, 1, 0, ""), badvers, false, 0, true},
		{"8.2.3 unknown EDNS options", soa(0, 1).opt(4096, 0, 0, other), 0, true, flagAA, true},
		{"8.2.4 unknown EDNS flags", soa(0, 1).opt(4096, 0, 0x40, ""), 0, true, flagAA, true},
		{"8.2.5 EDNS version negotiation with unknown flags", soa(0, 1).opt(4096, 1, 0x40, ""), badvers, false, 0, true},
		{"8.2.6 EDNS version negotiation with unknown options", soa(0, 1).opt(4096, 1, 0, other), badvers, false, 0, true},
		{"8.2.7 truncated responses", header(0, 1, 0, 0, 1).question("big."+testZone, dns.TypeTXT, 1).opt(512, 0, ednsDO, ""), 0, false, flagAA | flagTC, true},
		{"8.2.8 DO=1", soa(0, 1).opt(4096, 0, ednsDO, ""), 0, true, flagAA, true},
		{"8.2.9 EDNS version negotiation with DO=1", soa(0, 1).opt(4096, 1, ednsDO, ""), badvers, false, 0, true},
		{"8.2.10 multiple defined EDNS options", soa(0, 1).opt(4096, 0, 0, multiple), 0, true, flagAA, true},
	} {
		for _, tr := range []Transport{UDP, TCP} {
			name := tc.name
			if tr == TCP {
				name = "8.1.5 over TCP, " + name
			}
			t.Run(name, func(t *testing.T) {
				out, ok := h.Respond(nil, tc.query.b, Client{client.Addr, tr}, true)
				if !ok || len(out) == 0 {
					t.Fatal("no answer")
				}
				r := judge(t, h, tc.query.b, out, Client{client.Addr, tr})
				want := tc.flags
				if tr == TCP {
					want &^= flagTC
				}
				flags := binary.BigEndian.Uint16(out[2:])
				if got := flags & (flagAA | flagTC | flagRD | ad | z | 1<<7 | flagCD); flags&flagQR == 0 || got != want {
					t.Errorf("flags %04x; want %04x and QR", got, want)
				}
				if r.Rcode != tc.rcode || int(flags&opcodeMask) != int(binary.BigEndian.Uint16(tc.query.b[2:])&opcodeMask) {
					t.Errorf("code %s, flags %04x; want %s", dns.RcodeToString[r.Rcode], flags, dns.RcodeToString[tc.rcode])
				}
				has := len(r.Answer) > 0 && r.Answer[0].Header().Rrtype == dns.TypeSOA
				if has != tc.soa {
					t.Errorf("SOA in the answer: %v", has)
				}
				if tc.rcode == dns.RcodeNotImplemented && len(out) != headerLen {
					t.Errorf("%d bytes; want a header alone", len(out))
				}
				opt := r.IsEdns0()
				if (opt != nil) != tc.edns {
					t.Fatalf("OPT: %v", opt)
				}
				if opt == nil {
					return
				}
				do := strings.Contains(tc.name, "DO=1") || strings.Contains(tc.name, "truncated")
				if opt.Version() != 0 || opt.Do() != do || opt.Z() != 0 {
					t.Errorf("%v; want version 0, no unknown flags, DO as in the query", opt)
				}
				for _, o := range opt.Option {
					if code := o.Option(); code == 100 || code == dns.EDNS0SUBNET || code == dns.EDNS0EXPIRE {
						t.Errorf("the option %d is in the answer", code)
					}
				}
			})
		}
	}
}
