package dnsserver

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// raw builds packets by hand, also ones that no library would.
type raw struct{ b []byte }

func header(flags uint16, qd, an, ns, ar uint16) *raw {
	r := &raw{[]byte{0xab, 0xcd}}
	for _, v := range []uint16{flags, qd, an, ns, ar} {
		r.u16(v)
	}
	return r
}

func (r *raw) u16(v uint16) *raw { r.b = binary.BigEndian.AppendUint16(r.b, v); return r }

func (r *raw) bytes(s string) *raw { r.b = append(r.b, s...); return r }

func (r *raw) question(name string, typ, class uint16) *raw {
	wire, err := packName(name)
	if err != nil {
		panic(err)
	}
	return r.bytes(string(wire)).u16(typ).u16(class)
}

func (r *raw) opt(size uint16, version byte, flags uint16, options string) *raw {
	return r.bytes("\x00").u16(dns.TypeOPT).u16(size).bytes("\x00" + string(rune(version))).u16(flags).u16(uint16(len(options))).bytes(options)
}

// What RFC 8906 (see also TestRFC8906), 9619, 6891 and 8945 say of packets that
// are out of the ordinary.
func TestRawPackets(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	const mox = "mox.mjl_2d._.github.com.v0." + testZone
	q := func(flags uint16, ar uint16) *raw { return header(flags, 1, 0, 0, ar).question(mox, dns.TypeTXT, 1) }
	const drop = -1
	long := strings.Repeat("\x3f"+strings.Repeat("a", 63), 4)
	tsig := "\x03key\x00" + "\x00\xfa\x00\xff\x00\x00\x00\x00" + "\x00\x1d" + "\x0bhmac-sha256\x00" + "\x00\x00\x00\x00\x00\x01\x01\x2c\x00\x00\xab\xcd\x00\x00\x00\x00"
	for _, tc := range []struct {
		name  string
		p     *raw
		rcode int
	}{
		// Without EDNS.
		{"SOA", header(0, 1, 0, 0, 0).question(testZone, dns.TypeSOA, 1), dns.RcodeSuccess},
		{"unknown type", header(0, 1, 0, 0, 0).question(testZone, 1000, 1), dns.RcodeSuccess},
		{"AD", q(1<<5, 0), dns.RcodeSuccess},
		{"the reserved bit", q(1<<6, 0), dns.RcodeSuccess},
		{"RD", q(flagRD, 0), dns.RcodeSuccess},
		{"CD", q(flagCD, 0), dns.RcodeSuccess},
		{"AA, TC, RA and a code", q(flagAA|flagTC|1<<7|5, 0), dns.RcodeSuccess},
		{"unknown opcode", header(15<<11, 0, 0, 0, 0), dns.RcodeNotImplemented},
		{"unknown opcode with rubbish behind", header(15<<11, 9, 9, 9, 9).bytes("\xff\xff\xff"), dns.RcodeNotImplemented},
		{"NOTIFY", header(4<<11, 1, 0, 0, 0).question(testZone, dns.TypeSOA, 1), dns.RcodeNotImplemented},
		{"UPDATE", header(5<<11, 1, 0, 0, 0).question(testZone, dns.TypeSOA, 1), dns.RcodeNotImplemented},
		{"IQUERY", header(1<<11, 1, 0, 0, 0).question(testZone, dns.TypeSOA, 1), dns.RcodeNotImplemented},
		{"stateful operations", header(6<<11, 0, 0, 0, 0), dns.RcodeNotImplemented},
		// With EDNS.
		{"EDNS", q(0, 1).opt(1232, 0, 0, ""), dns.RcodeSuccess},
		{"EDNS, DO", q(0, 1).opt(1232, 0, ednsDO, ""), dns.RcodeSuccess},
		{"EDNS version 1", q(0, 1).opt(1232, 1, 0, ""), dns.RcodeBadVers},
		{"EDNS version 100, unknown option and flags", q(0, 1).opt(1232, 100, 0x0080, "\x00\x64\x00\x01x"), dns.RcodeBadVers},
		{"unknown option", q(0, 1).opt(1232, 0, 0, "\x00\x64\x00\x01x"), dns.RcodeSuccess},
		{"unknown flags", q(0, 1).opt(1232, 0, 0x0080, ""), dns.RcodeSuccess},
		{"buffer of 0", q(0, 1).opt(0, 0, ednsDO, ""), dns.RcodeSuccess},
		{"buffer of 65535", q(0, 1).opt(65535, 0, ednsDO, ""), dns.RcodeSuccess},
		{"client subnet", q(0, 1).opt(1232, 0, 0, "\x00\x08\x00\x07\x00\x01\x18\x00\xc0\x00\x02"), dns.RcodeSuccess},
		{"DNSKEY at 512 bytes", header(0, 1, 0, 0, 1).question(testZone, dns.TypeDNSKEY, 1).opt(512, 0, ednsDO, ""), dns.RcodeSuccess},
		// Types and classes.
		{"AXFR", header(0, 1, 0, 0, 0).question(testZone, dns.TypeAXFR, 1), dns.RcodeRefused},
		{"IXFR", header(0, 1, 0, 0, 0).question(testZone, dns.TypeIXFR, 1), dns.RcodeRefused},
		{"MAILB", header(0, 1, 0, 0, 0).question(testZone, dns.TypeMAILB, 1), dns.RcodeNotImplemented},
		{"NXNAME", header(0, 1, 0, 0, 1).question(testZone, dns.TypeNXNAME, 1).opt(1232, 0, 0, ""), dns.RcodeFormatError},
		{"OPT as type", header(0, 1, 0, 0, 0).question(testZone, dns.TypeOPT, 1), dns.RcodeFormatError},
		{"type 0", header(0, 1, 0, 0, 0).question(testZone, 0, 1), dns.RcodeSuccess},
		{"class CH", header(0, 1, 0, 0, 0).question("version.bind.", dns.TypeTXT, 3), dns.RcodeRefused},
		{"class ANY", header(0, 1, 0, 0, 0).question(testZone, dns.TypeSOA, 255), dns.RcodeRefused},
		{"class 0", header(0, 1, 0, 0, 0).question(testZone, dns.TypeSOA, 0), dns.RcodeRefused},
		{"the root", header(0, 1, 0, 0, 0).question(".", dns.TypeNS, 1), dns.RcodeRefused},
		// Counts (RFC 9619).
		{"two questions", header(0, 2, 0, 0, 0).question(mox, dns.TypeTXT, 1).question(mox, dns.TypeTXT, 1), dns.RcodeFormatError},
		{"no question", header(0, 0, 0, 0, 0), dns.RcodeFormatError},
		{"no question, EDNS", header(0, 0, 0, 0, 1).opt(1232, 0, 0, ""), dns.RcodeFormatError},
		{"no question, a cookie", header(0, 0, 0, 0, 1).opt(1232, 0, 0, "\x00\x0a\x00\x08abcdefgh"), dns.RcodeSuccess},
		{"65535 questions", header(0, 65535, 0, 0, 0).question(mox, dns.TypeTXT, 1), dns.RcodeFormatError},
		{"65535 records and none there", header(0, 1, 65535, 65535, 65535).question(mox, dns.TypeTXT, 1), dns.RcodeFormatError},
		{"an answer in the query", header(0, 1, 1, 0, 0).question(mox, dns.TypeTXT, 1).bytes("\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01"), dns.RcodeSuccess},
		// Names.
		{"a name that does not end", header(0, 1, 0, 0, 0).bytes("\x03abc"), dns.RcodeFormatError},
		{"a label beyond the end", header(0, 1, 0, 0, 0).bytes("\x3fabc\x00").u16(16).u16(1), dns.RcodeFormatError},
		{"a label of type 01", header(0, 1, 0, 0, 0).bytes("\x41abc\x00").u16(16).u16(1), dns.RcodeFormatError},
		{"a label of type 10", header(0, 1, 0, 0, 0).bytes("\x81abc\x00").u16(16).u16(1), dns.RcodeFormatError},
		{"a pointer as name", header(0, 1, 0, 0, 0).bytes("\xc0\x0c").u16(16).u16(1), dns.RcodeFormatError},
		{"a pointer into the header", header(0, 1, 0, 0, 0).bytes("\x01a\xc0\x00").u16(16).u16(1), dns.RcodeFormatError},
		{"a name of 256 bytes", header(0, 1, 0, 0, 0).bytes(long[:255] + "\x00").u16(16).u16(1), dns.RcodeFormatError},
		{"a name of 257 bytes", header(0, 1, 0, 0, 0).bytes(long + "\x00").u16(16).u16(1), dns.RcodeFormatError},
		{"a name without type", header(0, 1, 0, 0, 0).bytes("\x01a\x00"), dns.RcodeFormatError},
		{"a name without class", header(0, 1, 0, 0, 0).bytes("\x01a\x00").u16(1), dns.RcodeFormatError},
		// OPT.
		{"OPT twice", q(0, 2).opt(1232, 0, 0, "").opt(1232, 0, 0, ""), dns.RcodeFormatError},
		{"OPT as an answer", header(0, 1, 1, 0, 0).question(mox, dns.TypeTXT, 1).opt(1232, 0, 0, ""), dns.RcodeFormatError},
		{"OPT with a name", q(0, 1).bytes("\x01a\x00").u16(dns.TypeOPT).u16(1232).bytes("\x00\x00\x00\x00\x00\x00"), dns.RcodeFormatError},
		{"OPT data beyond the packet", q(0, 1).bytes("\x00").u16(dns.TypeOPT).u16(1232).bytes("\x00\x00\x00\x00\x00\x09"), dns.RcodeFormatError},
		{"OPT cut", q(0, 1).bytes("\x00").u16(dns.TypeOPT).u16(1232), dns.RcodeFormatError},
		{"an option beyond the OPT", q(0, 1).opt(1232, 0, 0, "\x00\x64\x00\x05x"), dns.RcodeFormatError},
		{"half an option", q(0, 1).opt(1232, 0, 0, "\x00\x64\x00"), dns.RcodeFormatError},
		{"a cookie of 7 bytes", q(0, 1).opt(1232, 0, 0, "\x00\x0a\x00\x07abcdefg"), dns.RcodeFormatError},
		{"a cookie of 41 bytes", q(0, 1).opt(1232, 0, 0, "\x00\x0a\x00\x29"+strings.Repeat("x", 41)), dns.RcodeFormatError},
		{"zone version with content", q(0, 1).opt(1232, 0, 0, "\x00\x13\x00\x01x"), dns.RcodeFormatError},
		{"a record behind OPT", q(0, 2).opt(1232, 0, 0, "").bytes("\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"), dns.RcodeSuccess},
		// TSIG.
		{"TSIG", q(0, 1).bytes(tsig), dns.RcodeNotAuth},
		{"TSIG and EDNS", q(0, 2).opt(1232, 0, 0, "").bytes(tsig), dns.RcodeNotAuth},
		{"TSIG not last", q(0, 2).bytes(tsig).opt(1232, 0, 0, ""), dns.RcodeFormatError},
		{"TSIG cut", q(0, 1).bytes(tsig[:len(tsig)-8]), dns.RcodeFormatError},
		{"TSIG with a wrong length", q(0, 1).bytes(strings.Replace(tsig, "\x00\x00\xab\xcd", "\x00\xff\xab\xcd", 1)), dns.RcodeFormatError},
		// Length.
		{"bytes behind the end", q(0, 0).bytes("x"), dns.RcodeFormatError},
		{"1,500 bytes of padding", q(0, 1).opt(1232, 0, 0, "\x00\x0c\x05\xdc"+strings.Repeat("\x00", 1500)), dns.RcodeSuccess},
		{"5,000 bytes of padding", q(0, 1).opt(1232, 0, 0, "\x00\x0c\x13\x88"+strings.Repeat("\x00", 5000)), dns.RcodeSuccess},
		{"not even a header", &raw{[]byte("\xab\xcd\x00\x00")}, drop},
		{"empty", &raw{nil}, drop},
		{"an answer", q(flagQR, 0), drop},
		{"an answer of an unknown opcode", header(flagQR|15<<11, 0, 0, 0, 0), drop},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, c := range []Client{client, {client.Addr, TCP}} {
				out, ok := h.Respond(nil, tc.p.b, c, true)
				if !ok {
					t.Fatal("not answered")
				}
				if tc.rcode == drop {
					if len(out) > 0 {
						t.Fatalf("answered %x; want silence", out)
					}
					continue
				}
				if len(out) == 0 {
					t.Fatal("silence")
				}
				r := judge(t, h, tc.p.b, out, c)
				if r.Rcode != tc.rcode {
					t.Errorf("%s; want %s\n%v", dns.RcodeToString[r.Rcode], dns.RcodeToString[tc.rcode], r)
				}
			}
			// However much of it arrives, it is read without a fault.
			for n := range tc.p.b {
				out, _ := h.Respond(nil, tc.p.b[:n], client, true)
				if len(out) > 0 {
					judge(t, h, tc.p.b[:n], out, client)
				}
			}
		})
	}
}

// A query with EDNS is answered with EDNS, also when something else in it is
// wrong: without, resolvers take the server for one that can't (RFC 6891, section
// 6.1.1). Of another version nothing is read but that.
func TestErrorsWithEDNS(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	q := func(ar uint16) *raw { return header(0, 1, 0, 0, ar).question(testZone, dns.TypeSOA, 1) }
	const badCookie = "\x00\x0a\x00\x07abcdefg"
	for _, tc := range []struct {
		name     string
		p        *raw
		rcode    int
		question bool
	}{
		{"a bad cookie", q(1).opt(1232, 0, ednsDO, "\x00\x03\x00\x00"+badCookie), dns.RcodeFormatError, true},
		{"an option beyond the OPT", q(1).opt(1232, 0, ednsDO, "\x00\x64\x00\x05x"), dns.RcodeFormatError, true},
		{"a bad cookie in another version", q(1).opt(1232, 7, ednsDO, badCookie), dns.RcodeBadVers, true},
		{"an option beyond the OPT in another version", q(1).opt(1232, 7, ednsDO, "\x00\x64\x00\x05x"), dns.RcodeBadVers, true},
		{"no question", header(0, 0, 0, 0, 1).opt(1232, 0, ednsDO, ""), dns.RcodeFormatError, false},
		{"bytes behind the end", q(1).opt(1232, 0, ednsDO, "").bytes("x"), dns.RcodeFormatError, false},
		{"OPT twice", q(2).opt(1232, 0, ednsDO, "").opt(1232, 0, ednsDO, ""), dns.RcodeFormatError, false},
	} {
		out, _ := h.Respond(nil, tc.p.b, client, true)
		r := judge(t, h, tc.p.b, out, client)
		opt := r.IsEdns0()
		if r.Rcode != tc.rcode || opt == nil || !opt.Do() || opt.Version() != 0 || len(opt.Option) > 0 || (len(r.Question) == 1) != tc.question {
			t.Errorf("%s: %v", tc.name, r)
		}
	}
}

func TestTSIGAnswer(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	m := question(testZone, dns.TypeSOA, false)
	m.SetTsig("key.example.", dns.HmacSHA256, 300, 1)
	packet, _, err := dns.TsigGenerate(m, "c2VjcmV0", "", false)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := h.Respond(nil, packet, client, true)
	r := judge(t, h, packet, out, client)
	tsig := r.IsTsig()
	if r.Rcode != dns.RcodeNotAuth || tsig == nil || tsig.Error != dns.RcodeBadKey || tsig.Hdr.Name != "key.example." || tsig.MACSize != 0 {
		t.Errorf("%v", r)
	}
}

func options(r *dns.Msg) map[uint16]dns.EDNS0 {
	m := map[uint16]dns.EDNS0{}
	for _, o := range r.IsEdns0().Option {
		m[o.Option()] = o
	}
	return m
}

func TestOptions(t *testing.T) {
	cfg := testConfig()
	cfg.ReportAgent = "agent.example.net"
	h := testHandler(t, cfg, testIndex())
	NewServer(h, ListenConfig{}).Close() // sets the idle limit
	m := question(testZone, dns.TypeSOA, true)
	opt := m.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_LOCAL{Code: dns.EDNS0ZONEVERSION},
		&dns.EDNS0_LOCAL{Code: dns.EDNS0TCPKEEPALIVE}, &dns.EDNS0_PADDING{Padding: make([]byte, 8)})
	for _, tr := range []Transport{UDP, TCP, TLS, HTTPS} {
		packet, _ := m.Pack()
		out, _ := h.Respond(nil, packet, Client{client.Addr, tr}, true)
		r := judge(t, h, packet, out, Client{client.Addr, tr})
		got := options(r)
		if nsid, ok := got[dns.EDNS0NSID].(*dns.EDNS0_NSID); !ok || nsid.Nsid != "6f6e65" {
			t.Errorf("%s: NSID %v", tr, got[dns.EDNS0NSID])
		}
		if v, ok := got[dns.EDNS0ZONEVERSION].(*dns.EDNS0_ZONEVERSION); !ok || v.LabelCount != 3 || v.Type != 0 || v.Version != "\x04HS|" {
			t.Errorf("%s: ZONEVERSION %#v", tr, got[dns.EDNS0ZONEVERSION])
		}
		if a, ok := got[dns.EDNS0REPORTING].(*dns.EDNS0_REPORTING); !ok || a.AgentDomain != "agent.example.net." {
			t.Errorf("%s: report channel %v", tr, got[dns.EDNS0REPORTING])
		}
		if _, ok := got[dns.EDNS0TCPKEEPALIVE]; ok != (tr == TCP || tr == TLS) {
			t.Errorf("%s: keepalive %v", tr, ok)
		}
		if _, ok := got[dns.EDNS0PADDING]; ok != tr.encrypted() || ok && len(out)%padBlock != 0 {
			t.Errorf("%s: padding %v, %d bytes", tr, ok, len(out))
		}
	}
	// Nothing that was not asked for, but the report channel.
	r := exchange(t, h, question(testZone, dns.TypeSOA, true), Client{client.Addr, TLS})
	if got := options(r); len(got) != 1 || got[dns.EDNS0REPORTING] == nil {
		t.Errorf("unasked: %v", got)
	}
}

func TestTruncation(t *testing.T) {
	cfg := testConfig()
	for range 30 {
		cfg.Records = append(cfg.Records, "big TXT "+strings.Repeat("x", 40+len(cfg.Records)))
	}
	h := testHandler(t, cfg, testIndex())
	for _, do := range []bool{false, true} {
		r := exchange(t, h, question("big."+testZone, dns.TypeTXT, do), client)
		if !r.Truncated {
			t.Errorf("DO %v: not truncated", do)
		}
		r = exchange(t, h, question("big."+testZone, dns.TypeTXT, do), Client{client.Addr, TCP})
		if r.Truncated || len(r.Answer) < 30 {
			t.Errorf("DO %v over TCP: %d records", do, len(r.Answer))
		}
	}
	// Addresses beside an answer are left out before it is cut.
	for range 40 {
		ns := NameServer{Name: "n" + strings.Repeat("s", len(cfg.NameServers)), Addresses: testConfig().NameServers[0].Addresses}
		cfg.NameServers = append(cfg.NameServers[:min(len(cfg.NameServers), 6)], ns)
	}
	h = testHandler(t, cfg, testIndex())
	m := question(testZone, dns.TypeNS, true)
	m.IsEdns0().SetUDPSize(512)
	if r := exchange(t, h, m, client); r.Truncated || len(r.Extra) != 1 || len(r.Answer) < 7 {
		t.Errorf("NS: %v", r)
	}
}

// Compression is what a library would do, or better.
func TestCompression(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	for _, name := range []string{testZone, "mox.mjl_2d._.github.com.v0." + testZone, "missing." + testZone} {
		for _, typ := range []uint16{dns.TypeNS, dns.TypeTXT, dns.TypeSOA, dns.TypeMX} {
			packet, _ := question(name, typ, true).Pack()
			out, _ := h.Respond(nil, packet, Client{client.Addr, TCP}, true)
			var r dns.Msg
			if err := r.Unpack(out); err != nil {
				t.Fatal(err)
			}
			r.Compress = true
			theirs, err := r.Pack()
			if err != nil || len(out) > len(theirs)+4*len(r.Extra) { // only the question's labels are shared
				t.Errorf("%s %s: %d bytes; could be %d (%v)", name, dns.TypeToString[typ], len(out), len(theirs), err)
			}
		}
	}
}

func TestSipHash(t *testing.T) {
	// From the reference implementation: key 00..0f, message 00..n-1.
	var key cookieSecret
	msg := make([]byte, 16)
	for i := range key {
		key[i], msg[i] = byte(i), byte(i)
	}
	for _, tc := range []struct {
		n    int
		want uint64
	}{{0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd}, {8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5}} {
		if got := sipHash24(&key, msg[:tc.n]); got != tc.want {
			t.Errorf("%d bytes: %x; want %x", tc.n, got, tc.want)
		}
	}
}

func TestCookies(t *testing.T) {
	secrets := []cookieSecret{{1}, {2}}
	addr := client.Addr.Addr()
	cookie := appendCookie(nil, &secrets[0], []byte("abcdefgh"), addr, 10000)
	old := appendCookie(nil, &secrets[1], []byte("abcdefgh"), addr, 10000)
	wrong := bytes.Clone(cookie)
	wrong[23] ^= 1
	for _, tc := range []struct {
		name         string
		cookie       []byte
		now          uint32
		valid, renew bool
	}{
		{"fresh", cookie, 10000, true, false},
		{"old", cookie, 10000 + 1801, true, true},
		{"too old", cookie, 10000 + 3601, false, true},
		{"from the future", cookie, 10000 - 301, false, true},
		{"by a clock a little ahead", cookie, 10000 - 299, true, false},
		{"by the former secret", old, 10000, true, true},
		{"forged", wrong, 10000, false, true},
		{"none yet", cookie[:8], 10000, false, true},
	} {
		if valid, renew := checkCookie(secrets, tc.cookie, addr, tc.now); valid != tc.valid || renew != tc.renew {
			t.Errorf("%s: %v, %v", tc.name, valid, renew)
		}
	}
	if valid, _ := checkCookie(secrets, cookie, addr.Next(), 10000); valid {
		t.Error("a cookie of another address is accepted")
	}
	h := testHandler(t, testConfig(), testIndex())
	m := question(testZone, dns.TypeSOA, true)
	opt := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	m.IsEdns0().Option = append(m.IsEdns0().Option, opt)
	first := options(exchange(t, h, m, client))[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE).Cookie
	if len(first) != 48 || !strings.HasPrefix(first, opt.Cookie) {
		t.Fatalf("cookie %s", first)
	}
	opt.Cookie = first
	if again := options(exchange(t, h, m, client))[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE).Cookie; again != first {
		t.Errorf("a good cookie %s was answered by %s", first, again)
	}
}

func TestCookieSecrets(t *testing.T) {
	secrets, err := ParseCookieSecrets("# shared\n000102030405060708090a0b0c0d0e0f # new\n\nffffffffffffffffffffffffffffffff\n")
	if err != nil || len(secrets) != 2 || secrets[0][15] != 15 || secrets[1][0] != 255 {
		t.Errorf("%x, %v", secrets, err)
	}
	for _, bad := range []string{"", "# none\n", "00", "zz0102030405060708090a0b0c0d0e0f"} {
		if s, err := ParseCookieSecrets(bad); err == nil {
			t.Errorf("%q: %x", bad, s)
		}
	}
	// Two servers with the same secrets accept each other's cookies.
	m := question(testZone, dns.TypeSOA, true)
	opt := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	m.IsEdns0().Option = append(m.IsEdns0().Option, opt)
	for range 3 {
		h := testHandler(t, testConfig(), testIndex())
		h.SetCookieSecrets(secrets)
		got := options(exchange(t, h, m, client))[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE).Cookie
		if len(opt.Cookie) == 48 && got != opt.Cookie {
			t.Errorf("another server's cookie %s was answered by %s", opt.Cookie, got)
		}
		opt.Cookie = got
	}
	// One that no longer has them accepts none of them.
	h := testHandler(t, testConfig(), testIndex())
	h.SetCookieSecrets(secrets)
	h.SetCookieSecrets(nil)
	if got := options(exchange(t, h, m, client))[dns.EDNS0COOKIE].(*dns.EDNS0_COOKIE).Cookie; got == opt.Cookie {
		t.Error("a secret that was taken away is still used")
	}
}
