package dnsserver

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/tlog/index"
)

func texts(r *dns.Msg) string {
	var s []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			s = append(s, strings.Join(txt.Txt, "|"))
		}
	}
	return strings.Join(s, " & ")
}

func TestAnswers(t *testing.T) {
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) { answers(t, denial) })
	}
}

var denials = []string{DenialCompact, DenialNSEC}

func answers(t *testing.T, denial string) {
	h := testHandler(t, with(denial), testIndex())
	const nx, ok = dns.RcodeNameError, dns.RcodeSuccess
	for _, tc := range []struct {
		name  string
		typ   uint16
		rcode int // without DO; with DO a name that is missing is NOERROR when denied compactly
		want  string
	}{
		{"mox.mjl_2d._.github.com.v0.", dns.TypeTXT, ok, "v=v0.0.15 t=66fa7e15"},
		{"MOX.mjl_2D._.GitHub.com.V0.", dns.TypeTXT, ok, "v=v0.0.15 t=66fa7e15"},
		{"mox.mjl_2d._.github.com.v0.", dns.TypeA, ok, ""},
		{"toml._42urnt_53ushi._.github.com.v0.", dns.TypeTXT, ok, "v=v2.0.0+incompatible t=2; v=v1.5.0 t=1"},
		{"gocloud.dev.v0.", dns.TypeTXT, ok, "v=v0.40.0 t=60000000"},
		{"v2.c.b.a._.github.com.v0.", dns.TypeTXT, ok, "v=v2.0.0 t=1"},
		{"toolchain.v0.", dns.TypeTXT, ok, "v=go1.27.4 k=cur t=6b000000; v=go1.26.11 k=prev t=6a000000"},
		// Nothing tagged: the name exists and has no data.
		{"mod.untagged._.github.com.v0.", dns.TypeTXT, ok, ""},
		// Every ancestor of an existing name exists.
		{"c.b.a._.github.com.v0.", dns.TypeTXT, ok, ""},
		{"b.a._.github.com.v0.", dns.TypeTXT, ok, ""},
		{"a._.github.com.v0.", dns.TypeTXT, ok, ""},
		{"_.github.com.v0.", dns.TypeTXT, ok, ""},
		{"github.com.v0.", dns.TypeTXT, ok, ""},
		{"com.v0.", dns.TypeTXT, ok, ""},
		{"dev.v0.", dns.TypeTXT, ok, ""},
		{"v0.", dns.TypeTXT, ok, ""},
		{"b.c.", dns.TypeTXT, ok, ""},
		{"c.", dns.TypeA, ok, ""},
		// And nothing else does.
		{"moxx.mjl_2d._.github.com.v0.", dns.TypeTXT, nx, ""},
		{"x.mox.mjl_2d._.github.com.v0.", dns.TypeTXT, nx, ""},
		{"_.gocloud.dev.v0.", dns.TypeTXT, nx, ""},
		{"hub.com.v0.", dns.TypeTXT, nx, ""},
		{"ithub.com.v0.", dns.TypeTXT, nx, ""},
		{"x.github.com.v0.", dns.TypeTXT, nx, ""},
		{"net.v0.", dns.TypeTXT, nx, ""},
		{"x.toolchain.v0.", dns.TypeTXT, nx, ""},
		{"v1.", dns.TypeTXT, nx, ""},
		{"x.www.", dns.TypeA, nx, ""},
		{"b.b.c.", dns.TypeTXT, nx, ""},
		// Other spellings of a module's bytes.
		{"m_6fx.mjl_2d._.github.com.v0.", dns.TypeTXT, nx, ""},
		{"mox.mjl-._.github.com.v0.", dns.TypeTXT, nx, ""},
		{"toml.burntsushi._.github.com.v0.", dns.TypeTXT, nx, ""},
		{`mo\120.mjl_2d._.github.com.v0.`, dns.TypeTXT, ok, "v=v0.0.15 t=66fa7e15"}, // that is how one writes x
		{`mox\000.mjl_2d._.github.com.v0.`, dns.TypeTXT, nx, ""},
		{`mox\.mjl_2d._.github.com.v0.`, dns.TypeTXT, nx, ""},
		// What the configuration gives.
		{"", dns.TypeSOA, ok, ""},
		{"", dns.TypeNS, ok, ""},
		{"", dns.TypeDNSKEY, ok, ""},
		{"", dns.TypeCDS, ok, ""},
		{"", dns.TypeCDNSKEY, ok, ""},
		{"", dns.TypeCAA, ok, ""},
		{"", dns.TypeMX, ok, ""},
		{"", dns.TypeTXT, ok, ""},
		{"", dns.TypeDS, ok, ""},
		{"ns0.", dns.TypeA, ok, ""},
		{"ns0.", dns.TypeAAAA, ok, ""},
		{"ns0.", dns.TypeDS, ok, ""},
		{"www.", dns.TypeA, ok, ""},
		{"a.b.c.", dns.TypeTXT, ok, "deep"},
	} {
		for _, typ := range []uint16{tc.typ, dns.TypeNSEC, dns.TypeRRSIG, dns.TypeANY, dns.TypeDS, dns.TypeHTTPS} {
			for _, do := range []bool{false, true} {
				r := exchange(t, h, question(tc.name+testZone, typ, do), client)
				want := tc.rcode
				if do && denial == DenialCompact {
					want = ok
				}
				if r.Rcode != want {
					t.Errorf("%s %s, DO %v: %s; want %s", tc.name, dns.TypeToString[typ], do, dns.RcodeToString[r.Rcode], dns.RcodeToString[want])
				}
				if got := texts(r); typ == tc.typ && got != tc.want {
					t.Errorf("%s %s, DO %v: %q; want %q", tc.name, dns.TypeToString[typ], do, got, tc.want)
				}
			}
		}
	}
}

// Both ways to ask for the code of a missing name (RFC 9824, section 5).
// An error says why, to those who understand it.
func TestExtendedErrors(t *testing.T) {
	for _, denial := range denials {
		cfg := with(denial)
		cfg.ReportAgent = "agent.example.net."
		h := testHandler(t, cfg, testIndex())
		for _, tc := range []struct {
			name  string
			typ   uint16
			class uint16
			rcode int
			code  uint16
		}{
			{moxName, dns.TypeNXNAME, dns.ClassINET, dns.RcodeFormatError, 30},
			{"missing." + testZone, dns.TypeNXNAME, dns.ClassINET, dns.RcodeFormatError, 30},
			{testZone, dns.TypeAXFR, dns.ClassINET, dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported},
			{testZone, dns.TypeIXFR, dns.ClassINET, dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported},
			{testZone, dns.TypeMAILA, dns.ClassINET, dns.RcodeNotImplemented, dns.ExtendedErrorCodeNotSupported},
			{"x" + testZone, dns.TypeTXT, dns.ClassINET, dns.RcodeRefused, dns.ExtendedErrorCodeNotAuthoritative},
			{testZone, dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, dns.ExtendedErrorCodeNotAuthoritative},
		} {
			m := question(tc.name, tc.typ, true)
			m.Question[0].Qclass = tc.class
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0ZONEVERSION})
			r := exchange(t, h, m, client)
			for _, code := range []uint16{dns.EDNS0ZONEVERSION, dns.EDNS0REPORTING} {
				if options(r)[code] != nil {
					t.Errorf("%s %s: an option of the zone in what is no answer of it: %v", tc.name, dns.Type(tc.typ), r)
				}
			}
			ede, ok := options(r)[dns.EDNS0EDE].(*dns.EDNS0_EDE)
			if r.Rcode != tc.rcode || !ok || ede.InfoCode != tc.code {
				t.Errorf("%s, %s %s: %v; want extended error %d", denial, tc.name, dns.Type(tc.typ), r, tc.code)
			}
		}
	}
}

func TestCompactAnswersOK(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	m := question("missing."+testZone, dns.TypeTXT, true)
	m.IsEdns0().SetCo()
	r := exchange(t, h, m, client)
	if r.Rcode != dns.RcodeNameError || !r.IsEdns0().Co() || len(r.Ns) != 4 {
		t.Errorf("with CO:\n%v", r)
	}
	r = exchange(t, h, question("missing."+testZone, dns.TypeTXT, true), client)
	if r.Rcode != dns.RcodeSuccess || r.IsEdns0().Co() {
		t.Errorf("without CO:\n%v", r)
	}
	// With a chain there is nothing compact to agree to.
	r = exchange(t, testHandler(t, with(DenialNSEC), testIndex()), m, client)
	if r.Rcode != dns.RcodeNameError || r.IsEdns0().Co() {
		t.Errorf("with CO and a chain:\n%v", r)
	}
}

func TestApex(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	r := exchange(t, h, question(testZone, dns.TypeSOA, true), client)
	soa := r.Answer[0].(*dns.SOA)
	if soa.Serial != 71848828 || soa.Ns != "ns0."+testZone || soa.Mbox != "hostmaster."+testZone || soa.Minttl != 60 || soa.Hdr.Ttl != 300 {
		t.Errorf("%v", soa)
	}
	r = exchange(t, h, question(testZone, dns.TypeNS, false), client)
	if len(r.Answer) != 2 || len(r.Extra) != 2 {
		t.Errorf("NS: %v", r)
	}
	r = exchange(t, h, question(testZone, dns.TypeCDS, true), client)
	key := h.view.Load().zone.keys[0]
	if cds := r.Answer[0].(*dns.CDS); cds.Digest != strings.ToLower(key.DS().Digest) && !strings.EqualFold(cds.Digest, key.DS().Digest) {
		t.Errorf("CDS %v is not for the DS %v", cds, key.DS())
	}
	r = exchange(t, h, question("missing."+testZone, dns.TypeTXT, false), client)
	if soa := r.Ns[0].(*dns.SOA); soa.Hdr.Ttl != 60 {
		t.Errorf("a denial is kept for %d seconds", soa.Hdr.Ttl)
	}
}

func TestManyMajors(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	got := texts(exchange(t, h, question("many._.example.org.v0."+testZone, dns.TypeTXT, true), client))
	if len(got) > 255 || len(got) < 230 || !strings.HasPrefix(got, "v=v40.0.0 t=60000000; v=v39.0.0 ") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// What the index learns is in the next answer; signatures of what stayed the
// same are kept.
func TestIndexChanges(t *testing.T) {
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { indexChanges(t, denial) })
		})
	}
}

func indexChanges(t *testing.T, denial string) {
	idx := testIndex()
	h := testHandler(t, with(denial), idx)
	go h.Run(t.Context())
	synctest.Wait()
	const mox, fresh = "mox.mjl_2d._.github.com.v0." + testZone, "new._.example.org.v0." + testZone
	ask := func(name string) string {
		return texts(exchange(t, h, question(name, dns.TypeTXT, true), client))
	}
	if ask(mox) != "v=v0.0.15 t=66fa7e15" || ask(fresh) != "" {
		t.Fatal("wrong at the start")
	}
	before := h.stat.sigs.Load()
	idx.Set(memindex.Head(71848829), memindex.Release("example.org/new", "v1.0.0", 1))
	synctest.Wait()
	if ask(mox) != "v=v0.0.15 t=66fa7e15" || h.stat.sigs.Load() != before {
		t.Errorf("mox was signed again")
	}
	if ask(fresh) != "v=v1.0.0 t=1" {
		t.Errorf("the new module is not there")
	}
	if soa := exchange(t, h, question(testZone, dns.TypeSOA, true), client).Answer[0].(*dns.SOA); soa.Serial != 71848829 {
		t.Errorf("serial %d", soa.Serial)
	}
}

func TestStatusAndStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idx := testIndex()
		cfg := testConfig()
		h := testHandler(t, cfg, idx)
		go h.Run(t.Context())
		start := time.Now()
		status := func() string {
			return texts(exchange(t, h, question("status.v0."+testZone, dns.TypeTXT, true), client))
		}
		want := fmt.Sprintf("n=71848828 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= at=%x", start.Unix())
		if got := status(); got != want {
			t.Errorf("%q; want %q", got, want)
		}
		const mox = "mox.mjl_2d._.github.com.v0." + testZone
		rcode := func(name string) int {
			return exchange(t, h, question(name, dns.TypeTXT, true), client).Rcode
		}
		time.Sleep(cfg.StaleAfter.D() - time.Minute)
		synctest.Wait()
		if got := rcode(mox); got != dns.RcodeSuccess {
			t.Errorf("just before: %s", dns.RcodeToString[got])
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r := exchange(t, h, question(mox, dns.TypeTXT, true), client)
		if r.Rcode != dns.RcodeServerFailure || !h.stat.stale.Load() {
			t.Errorf("stale: %v", r)
		}
		if ede, ok := r.IsEdns0().Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != dns.ExtendedErrorCodeNotReady || !strings.HasPrefix(ede.ExtraText, "stale: ") {
			t.Errorf("stale: %v", r)
		}
		// The zone itself, and what says how stale it is, are answered.
		if got := status(); got != want || rcode(testZone) != dns.RcodeSuccess || rcode("www."+testZone) != dns.RcodeSuccess {
			t.Errorf("stale: status %q", got)
		}
		idx.Set(memindex.Head(71848829))
		synctest.Wait()
		if got := rcode(mox); got != dns.RcodeSuccess {
			t.Errorf("fresh again: %s", dns.RcodeToString[got])
		}
	})
}

func TestStaleness(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tc := range []struct {
		age, limit time.Duration
		stale      bool
	}{
		{0, time.Hour, false},
		{time.Hour, time.Hour, false},
		{time.Hour + 1, time.Hour, true},
		{1000 * time.Hour, 0, false}, // no limit
		{-time.Hour, time.Hour, false},
		{-time.Hour - 1, time.Hour, true}, // read by a clock that was ahead: it would never be too old
	} {
		if got := staleness(index.Head{Size: 1, Accepted: now.Add(-tc.age)}, tc.limit, now); got != "" != tc.stale {
			t.Errorf("read %v ago, limit %v: %q", tc.age, tc.limit, got)
		}
	}
}

// Before the log was read nothing can be said of any module.
func TestEmptyIndex(t *testing.T) {
	h := testHandler(t, testConfig(), memindex.New())
	for _, name := range []string{"mox.mjl_2d._.github.com.v0.", "status.v0.", "toolchain.v0."} {
		if r := exchange(t, h, question(name+testZone, dns.TypeTXT, true), client); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v", name, r)
		}
	}
	if r := exchange(t, h, question(testZone, dns.TypeSOA, true), client); r.Rcode != dns.RcodeSuccess {
		t.Errorf("%v", r)
	}
}

func TestOutside(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	for _, name := range []string{"xl.upkeep.test.", "upkeep.test.", ".", "example.org.", `x\.l.upkeep.test.`, "l.upkeep.test.example."} {
		r := exchange(t, h, question(name, dns.TypeTXT, true), client)
		if r.Rcode != dns.RcodeRefused || r.Authoritative {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// The longest names yield answers that fit and denials that are valid.
func TestLongNames(t *testing.T) {
	h := testHandler(t, testConfig(), testIndex())
	for n := 180; n <= 255; n++ {
		name := testZone
		for len(name)+1 < n {
			l := min(63, n-len(name)-2)
			if rest := n - len(name) - 2 - l; rest == 1 {
				l--
			}
			if l < 1 {
				break
			}
			name = strings.Repeat("a", l) + "." + name
		}
		if len(name)+1 != n {
			continue
		}
		for _, size := range []uint16{512, 1232} {
			m := question(name, dns.TypeTXT, true)
			m.IsEdns0().SetUDPSize(size)
			exchange(t, h, m, client)
			exchange(t, h, m, Client{client.Addr, TCP})
		}
		exchange(t, h, question(name, dns.TypeTXT, false), client)
	}
}

func TestSuccessor(t *testing.T) {
	label := func(n int, c byte) string { return string([]byte{byte(n)}) + strings.Repeat(string([]byte{c}), n) }
	long := label(63, 'a') + label(63, 'b') + label(63, 'c')
	for _, tc := range []struct{ name, want string }{
		{label(1, 'a') + "\x00", "\x01\x00\x01a\x00"},
		{label(59, 'x') + long + "\x00", "\x01\x00" + label(59, 'x') + long + "\x00"}, // 253 + 2
		{label(60, 'x') + long + "\x00", "\x3d" + strings.Repeat("x", 60) + "\x00" + long + "\x00"},
		{label(61, 'x') + long + "\x00", "\x3d" + strings.Repeat("x", 60) + "y" + long + "\x00"},
		{"\x3d" + strings.Repeat("x", 60) + "@" + long + "\x00", "\x3d" + strings.Repeat("x", 60) + "[" + long + "\x00"}, // over the upper case
		{"\x3d" + strings.Repeat("x", 60) + "\xff" + long + "\x00", "\x3c" + strings.Repeat("x", 59) + "y" + long + "\x00"},
	} {
		if got := string(successor(nil, []byte(tc.name))); got != tc.want {
			t.Errorf("%q: %q; want %q", tc.name, got, tc.want)
		}
	}
}

// Resolvers find the encrypted transports by SVCB (RFC 9461).
func TestBindings(t *testing.T) {
	cfg := testConfig()
	cfg.Encrypted = Encrypted{DoT: 853, DoH: 8443}
	h := testHandler(t, cfg, testIndex())
	r := exchange(t, h, question("_dns.ns0."+testZone, dns.TypeSVCB, true), client)
	var got []string
	for _, rr := range r.Answer {
		if s, ok := rr.(*dns.SVCB); ok {
			got = append(got, strings.TrimPrefix(s.String(), s.Hdr.String()))
		}
	}
	want := "1 ns0.l.upkeep.test. alpn=\"dot\" & 2 ns0.l.upkeep.test. alpn=\"h2\" port=\"8443\" dohpath=\"/dns-query{?dns}\""
	if strings.Join(got, " & ") != want {
		t.Errorf("%q; want %q", got, want)
	}
	h = testHandler(t, testConfig(), testIndex())
	if r := exchange(t, h, question("_dns.ns0."+testZone, dns.TypeSVCB, false), client); r.Rcode != dns.RcodeNameError {
		t.Errorf("without: %v", r)
	}
}

// Another configuration with the same keys keeps the signatures of what is
// still the same, and shows what is not.
func TestReloadKeepsSignatures(t *testing.T) {
	cfg := testConfig()
	h := testHandler(t, cfg, testIndex())
	keys := h.view.Load().zone.keys
	exchange(t, h, question(moxName, dns.TypeTXT, true), client)
	before := h.stat.sigs.Load()
	cfg.Records = append(cfg.Records, "fresh TXT new")
	if err := h.Reload(cfg, keys, h.view.Load().limits); err != nil {
		t.Fatal(err)
	}
	exchange(t, h, question(moxName, dns.TypeTXT, true), client)
	if n := h.stat.sigs.Load() - before; n != 0 {
		t.Errorf("%d signatures were made again", n)
	}
	if got := texts(exchange(t, h, question("fresh."+testZone, dns.TypeTXT, true), client)); got != "new" {
		t.Errorf("%q", got)
	}
	cfg.Records = []string{"x CNAME y"}
	if err := h.Reload(cfg, keys, h.view.Load().limits); err == nil {
		t.Error("a bad configuration was taken")
	}
	if err := h.Reload(testConfig(), testKeys(t, "ecdsap256sha256"), h.view.Load().limits); err != nil {
		t.Fatal(err)
	}
	exchange(t, h, question(moxName, dns.TypeTXT, true), client) // verifies with the new key
}
