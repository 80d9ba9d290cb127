package discover

import (
	"crypto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
)

// The key of the fuzz targets is fixed, so that the corpus stays valid.
const (
	fuzzPublicKey  = "W+g0m3UNUdNAQa/Ec+qDp4O6ZX4JDg+isk1k4/48RCoET0kUwvG/2JFnLAwJs9b6XfpHNy/WIQQamLXUiNdlxw=="
	fuzzPrivateKey = "LE4mYN72J9mYCbhvEX5Uk21dFZu9uYlJjooYAw2D0E8="
	fuzzPrivate    = "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: "
)

func fuzzKeys(t testing.TB) (*keySet, crypto.Signer) {
	t.Helper()
	k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: testZone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256, PublicKey: fuzzPublicKey}
	priv, err := k.NewPrivateKey(fuzzPrivate + fuzzPrivateKey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return &keySet{zone: testZone, keys: []*dns.DNSKEY{k}}, priv.(crypto.Signer)
}

func fuzzSign(t testing.TB, ks *keySet, priv crypto.Signer, set ...dns.RR) []dns.RR {
	sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: 60}, Algorithm: 13, KeyTag: ks.keys[0].KeyTag(), SignerName: testZone,
		Inception: uint32(epoch.Add(-time.Hour).Unix()), Expiration: uint32(epoch.Add(time.Hour).Unix())}
	if err := sig.Sign(priv, set); err != nil {
		t.Fatal(err)
	}
	return append(set, sig)
}

// fuzzSeeds are answers of every kind: a version, a compact denial, NSEC, NSEC3.
func fuzzSeeds(t testing.TB) [][]byte {
	ks, priv := fuzzKeys(t)
	qname, err := name.Module(hello, testZone)
	if err != nil {
		t.Fatal(err)
	}
	rr := func(s string) dns.RR {
		r, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	unknown := "nothing._.example.org.v0." + testZone
	msg := func(q string, typ uint16, answer, ns []dns.RR) []byte {
		m := new(dns.Msg)
		m.SetQuestion(q, typ)
		m.Response, m.Answer, m.Ns = true, answer, ns
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return wire
	}
	join := func(sets ...[]dns.RR) (out []dns.RR) {
		for _, s := range sets {
			out = append(out, s...)
		}
		return out
	}
	sign := func(s string) []dns.RR { return fuzzSign(t, ks, priv, rr(s)) }
	compact := &dns.NSEC{Hdr: dns.RR_Header{Name: unknown, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}, NextDomain: `\000.` + unknown, TypeBitMap: []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME}}
	return [][]byte{
		msg(qname, dns.TypeTXT, sign(qname+` 60 IN TXT "`+fuzzText+`"`), nil),
		msg(unknown, dns.TypeTXT, nil, fuzzSign(t, ks, priv, compact)),
		msg("a."+testZone, dns.TypeTXT, nil, join(sign(testZone+" 60 IN NSEC b."+testZone+" NS SOA RRSIG NSEC DNSKEY"))),
		msg("b."+testZone, dns.TypeDS, nil, join(sign("b."+testZone+" 60 IN NSEC c."+testZone+" NS RRSIG NSEC"))),
		msg("c."+testZone, dns.TypeTXT, sign("*."+testZone+` 60 IN TXT "wild"`), join(sign("b."+testZone+" 60 IN NSEC d."+testZone+" NS RRSIG NSEC"))),
		msg("e."+testZone, dns.TypeTXT, nil, join(
			sign(strings.ToLower(dns.HashName(testZone, dns.SHA1, 1, "ab"))+"."+testZone+" 60 IN NSEC3 1 0 1 AB "+strings.Repeat("V", 32)+" NS SOA RRSIG DNSKEY"),
			sign(strings.Repeat("0", 32)+"."+testZone+" 60 IN NSEC3 1 1 1 AB "+strings.Repeat("V", 32)+" NS"))),
		msg(testZone, dns.TypeDNSKEY, fuzzSign(t, ks, priv, ks.keys[0]), nil),
	}
}

const fuzzText = "v=v1.0.1 t=6a000000"

// A fuzzCrypto gives the verdicts of [dns.RRSIG.Verify] faster. A signature
// that is not one of the seeds' cannot be good, since nobody else has the key:
// of those only some are really checked. The others are checked once per message.
type fuzzCrypto struct {
	known map[string]bool // signatures, in base64
	seen  map[string]error
	buf   []byte
	n     int
}

func newFuzzCrypto(t testing.TB, seeds [][]byte) *fuzzCrypto {
	f := &fuzzCrypto{known: map[string]bool{}, seen: map[string]error{}, buf: make([]byte, dns.MaxMsgSize)}
	for _, wire := range seeds {
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			t.Fatal(err)
		}
		for _, r := range append(m.Answer, m.Ns...) {
			if sig, ok := r.(*dns.RRSIG); ok {
				f.known[sig.Signature] = true
			}
		}
	}
	return f
}

func (f *fuzzCrypto) verify(sig *dns.RRSIG, k *dns.DNSKEY, set []dns.RR) error {
	if !f.known[sig.Signature] {
		if f.n++; f.n%64 != 0 {
			return dns.ErrSig
		}
		return sig.Verify(k, set)
	}
	// The same records with the same signature and key, as packed.
	off := 0
	for _, r := range append([]dns.RR{sig, k}, set...) {
		n, err := dns.PackRR(r, f.buf, off, nil, false)
		if err != nil {
			return sig.Verify(k, set)
		}
		off = n
	}
	key := string(f.buf[:off])
	err, ok := f.seen[key]
	if !ok {
		err = sig.Verify(k, set)
		if len(f.seen) > 10000 {
			clear(f.seen)
		}
		f.seen[key] = err
	}
	return err
}

// The faster verdicts are the same as the real ones.
func TestFuzzCrypto(t *testing.T) {
	seeds := fuzzSeeds(t)
	ks, _ := fuzzKeys(t)
	fast := newFuzzCrypto(t, seeds)
	good, bad := 0, 0
	for _, wire := range seeds {
		for i := range wire {
			m := new(dns.Msg)
			changed := slices.Clone(wire)
			changed[i] ^= 1
			if m.Unpack(changed) != nil {
				continue
			}
			for _, s := range group(append(m.Answer, m.Ns...)) {
				for _, sig := range s.sigs {
					if len(s.rrs) == 0 {
						continue
					}
					want, got := sig.Verify(ks.keys[0], s.rrs) == nil, fast.verify(sig, ks.keys[0], s.rrs) == nil
					if want != got {
						t.Errorf("byte %d of a message: %v, the library says %v", i, got, want)
					}
					if want {
						good++
					} else {
						bad++
					}
				}
			}
		}
	}
	if good == 0 || bad == 0 {
		t.Errorf("%d good and %d bad signatures were seen", good, bad)
	}
}

// derived is how many further messages each one that is fuzzed stands for.
const derived = 24

// FuzzAnswer: whatever is received, only what the zone's key signed is
// believed. Each message is judged as it is, and with changes of its records.
func FuzzAnswer(f *testing.F) {
	seeds := fuzzSeeds(f)
	var stock []dns.RR
	for _, s := range seeds {
		f.Add(s)
		m := new(dns.Msg)
		if err := m.Unpack(s); err != nil {
			f.Fatal(err)
		}
		stock = append(append(stock, m.Answer...), m.Ns...)
	}
	ks, _ := fuzzKeys(f)
	fast := newFuzzCrypto(f, seeds)
	qname, err := name.Module(hello, testZone)
	if err != nil {
		f.Fatal(err)
	}
	names := []string{qname, testZone, "c." + testZone, "*." + testZone, "test.", ".", "x." + qname}
	ds := []*dns.DS{ks.keys[0].ToDS(dns.SHA256)}
	judge := func(t *testing.T, m *dns.Msg) {
		check := func(q string) {
			c := &checker{now: epoch, crypto: fast.verify}
			txt, err := c.txt(m, q, ks)
			if err == nil && txt.found && txt.txt != fuzzText && txt.txt != "wild" {
				t.Errorf("%s: believed %q:\n%v", q, txt.txt, m)
			}
			if err == nil && q == qname && !txt.found {
				t.Errorf("%s: believed that there is none: %+v:\n%v", q, txt, m)
			}
			if err == nil && txt.until.After(epoch.Add(time.Hour)) {
				t.Errorf("%s: believed until %v, beyond its signature:\n%v", q, txt.until, m)
			}
			if c.tries > maxVerify+1 {
				t.Errorf("%d signature checks", c.tries)
			}
		}
		check(qname)
		if len(m.Question) == 1 {
			if q := dns.CanonicalName(m.Question[0].Name); dns.IsSubDomain(testZone, q) && q != qname && q != "c."+testZone {
				check(q)
			}
		}
		// A chain that consists of this message everywhere ends at the zone or nowhere.
		c := &checker{now: epoch, crypto: fast.verify}
		end, err := c.walk(Anchors{Zone: testZone, DS: ds}, "x."+testZone, func(question) (*dns.Msg, error) { return m, nil })
		if err == nil && end.zone != testZone {
			t.Errorf("keys of %s:\n%v", end.zone, m)
		}
		if _, err := believe(m, qname, epoch); err == nil && !m.AuthenticatedData {
			t.Error("believed without the AD bit")
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		_ = m.Unpack(wire) // of a message that is cut short, what there is
		r := newMutator(wire, stock, names)
		for range derived {
			judge(t, r.change(m))
		}
		judge(t, m)
	})
}

// FuzzAnchors: a file that is accepted holds usable keys of one zone.
func FuzzAnchors(f *testing.F) {
	f.Add(rootAnchors)
	f.Add(`trust-anchors { "l.upkeep.test." static-ds 35576 13 2 "CC507AFC3260E4DA60D113EBF001BFF5404CEEC74BFBD1AD5C59AB058F0F8582"; };`)
	f.Add("trust-anchors { l.upkeep.test. static-key 257 3 13 \"" + fuzzPublicKey + "\"; /* x */ };")
	f.Add(rootXML)
	f.Add("l.upkeep.test. IN DNSKEY 257 3 13 " + fuzzPublicKey)
	f.Add("$TTL 1\n. 1 IN DS ( 20326 8 2 ; x\n 00 )\n DS 1 8 2 00 11\n")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAnchors([]byte(text), epoch)
		if err != nil {
			return
		}
		usable := 0
		for _, d := range a.DS {
			if d.Hdr.Name != a.Zone {
				t.Errorf("key of %s in anchors of %s", d.Hdr.Name, a.Zone)
			}
			if supportedDS(d) {
				usable++
			}
		}
		if usable == 0 || len(a.DS) > maxAnchors || a.Zone == "" {
			t.Errorf("accepted: %+v", a)
		}
		if trimmed := strings.TrimSpace(text); !strings.HasPrefix(trimmed, "<") && !strings.ContainsRune(trimmed, '{') {
			sameAsZoneFile(t, text, a)
		}
	})
}

// sameAsZoneFile: what is accepted as a zone file's records, a parser of all of
// that format reads in the same way, if it reads it at all.
func sameAsZoneFile(t *testing.T, text string, a Anchors) {
	var want []*dns.DS
	zp := dns.NewZoneParser(strings.NewReader(text), "", "")
	zp.SetDefaultTTL(3600)
	for rr, ok := zp.Next(); ok && len(want) < len(a.DS)+1; rr, ok = zp.Next() {
		d, _ := rr.(*dns.DS)
		if k, ok := rr.(*dns.DNSKEY); ok {
			d = k.ToDS(dns.SHA256)
		}
		if d == nil {
			t.Fatalf("%v was accepted", rr)
		}
		want = append(want, d)
	}
	if zp.Err() != nil {
		return
	}
	if len(want) != len(a.DS) {
		t.Fatalf("%v, want %v", a.DS, want)
	}
	for i, d := range a.DS {
		w := want[i]
		if dns.CanonicalName(w.Hdr.Name) != d.Hdr.Name || w.KeyTag != d.KeyTag || w.Algorithm != d.Algorithm ||
			w.DigestType != d.DigestType || !strings.EqualFold(w.Digest, d.Digest) {
			t.Errorf("%v, want %v", d, w)
		}
	}
}

// FuzzCache: other users of the machine write into the shared folder.
func FuzzCache(f *testing.F) {
	for _, s := range fuzzSeeds(f)[:2] {
		f.Add(s, int64(10))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, wire []byte, age int64) {
		c := cache{dir}
		m := new(dns.Msg)
		if m.Unpack(wire) != nil || len(m.Question) != 1 || age < -1000 || age > 1<<20 {
			return
		}
		q := question{dns.CanonicalName(m.Question[0].Name), m.Question[0].Qtype}
		c.store(epoch, map[question]result{q: {reply: reply{msg: m}}}, "x")
		for got, r := range c.load(epoch.Add(time.Duration(age)*time.Second), "x") {
			if got != q || age < 0 || time.Duration(age)*time.Second >= lowestTTL(m) {
				t.Errorf("%v at %d s: %v", got, age, r.msg)
			}
		}
	})
}
