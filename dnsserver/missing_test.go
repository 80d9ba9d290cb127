package dnsserver

import (
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/internal/memindex"
)

// What is known of a name that does not exist holds until the index changes, and
// its signature after that.
func TestMissingKept(t *testing.T) {
	idx := testIndex()
	h := testHandler(t, testConfig(), idx)
	const owner = "later._.github.com.v0." + testZone
	packet, err := question(owner, dns.TypeTXT, true).Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q query
	ask := func(how mode) bool {
		out, ok := h.respond(nil, packet, client, &q, h.now(), how)
		if ok {
			judge(t, h, packet, out, client)
		}
		return ok
	}
	sigs := func(want uint64, what string) {
		t.Helper()
		if got := h.stat.sigs.Swap(0); got != want {
			t.Errorf("%s: %d signatures; want %d", what, got, want)
		}
	}
	if ask(atOnce) || ask(crowded) {
		t.Error("answered without a signature")
	}
	sigs(0, "without signing")
	if !ask(signing) {
		t.Error("not signed")
	}
	sigs(2, "the SOA record and the denial")
	if !ask(atOnce) || !ask(crowded) || !ask(signing) {
		t.Error("what was signed is not answered")
	}
	sigs(0, "again")
	idx.Set(memindex.Head(71848829), memindex.Release("github.com/other/module", "v1.0.0", 1))
	if err := h.refresh(true); err != nil {
		t.Fatal(err)
	}
	if ask(crowded) {
		t.Error("in a crowd, a name was looked up that nobody asked for since the index changed")
	}
	ask(signing)
	sigs(1, "the new SOA record")
	idx.Set(memindex.Head(71848830), memindex.Release("github.com/later", "v1.0.0", 1))
	if err := h.refresh(true); err != nil {
		t.Fatal(err)
	}
	for _, do := range []bool{true, false} {
		if r := exchange(t, h, question(owner, dns.TypeTXT, do), client); len(r.Answer) == 0 {
			t.Errorf("the name exists now: %v", r)
		}
	}
}

// While a key is changed two sign, and what is kept of one's signature is not taken
// for the other's.
func TestMissingTwoKeys(t *testing.T) {
	dir := t.TempDir()
	for _, alg := range []string{"ecdsap256sha256", "ed25519"} {
		if _, err := GenerateKey(dir, testZone, alg, true, Timing{}); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := LoadKeys(dir, testZone)
	if err != nil {
		t.Fatal(err)
	}
	for _, denial := range denials {
		h, err := NewHandler(with(denial), keys, testIndex(), Options{Limits: Limits{Answers: 64}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r := exchange(t, h, question("missing."+testZone, dns.TypeTXT, true), client)
			sets, signed := map[string][]dns.RR{}, map[uint16]int{}
			id := func(name string, typ uint16) string { return name + " " + dns.Type(typ).String() }
			for _, rr := range r.Ns {
				sets[id(rr.Header().Name, rr.Header().Rrtype)] = append(sets[id(rr.Header().Name, rr.Header().Rrtype)], rr)
			}
			for _, rr := range r.Ns {
				sig, ok := rr.(*dns.RRSIG)
				if !ok {
					continue
				}
				for _, k := range keys {
					if k.Tag == sig.KeyTag {
						signed[k.Tag]++
						if err := sig.Verify(k.Public, sets[id(sig.Hdr.Name, sig.TypeCovered)]); err != nil {
							t.Errorf("%s: %v: %v", denial, sig, err)
						}
					}
				}
			}
			if len(signed) != 2 || signed[keys[0].Tag] != signed[keys[1].Tag] {
				t.Errorf("%s: signatures by key: %v", denial, signed)
			}
		}
	}
}

// A flood of names has places only among its like.
func TestTablesFull(t *testing.T) {
	now := testHandler(t, testConfig(), testIndex()).now()
	var stamps stampTable
	stamps.init(0)
	absent := newAbsenceTable(0)
	digestOf := func(i int) digest { return digest{byte(i), byte(i >> 8), 0, 0, 0, 0, 0, 0, 1} }
	fresh := uint32(now.Unix() + 10)
	for i := range 10000 {
		stamps.put(digestOf(i), &stamp{refresh: fresh, sig: [64]byte{byte(i)}})
		absent.put(absence{digestOf(i), 7})
		if st, ok := stamps.get(digestOf(i), now); !ok || st.sig[0] != byte(i) {
			t.Fatalf("stamp %d is not there", i)
		}
		if !absent.has(absence{digestOf(i), 7}) || absent.has(absence{digestOf(i), 8}) {
			t.Fatalf("absence %d", i)
		}
	}
	kept := 0
	for i := range 10000 {
		if st, ok := stamps.get(digestOf(i), now); ok {
			kept++
			if st.sig[0] != byte(i) {
				t.Errorf("stamp %d is another's", i)
			}
		}
	}
	if kept != len(stamps.keys) {
		t.Errorf("%d stamps kept; want %d", kept, len(stamps.keys))
	}
	stamps.put(digestOf(1), &stamp{refresh: uint32(now.Unix())})
	if _, ok := stamps.get(digestOf(1), now); ok {
		t.Error("an old stamp is still used")
	}
}

func TestFromDER(t *testing.T) {
	number := func(bytes ...byte) *big.Int { return new(big.Int).SetBytes(bytes) }
	large := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	for _, tc := range []struct{ r, s *big.Int }{
		{number(1), number(2)}, {number(0x80), number(0x7f, 0xff)}, {large, number(1)}, {number(0xff, 0), large}, {large, large},
	} {
		der, err := asn1.Marshal(struct{ R, S *big.Int }{tc.r, tc.s})
		if err != nil {
			t.Fatal(err)
		}
		sig := [64]byte{0: 0xee, 40: 0xee}
		if err := fromDER(&sig, der); err != nil {
			t.Errorf("%x: %v", der, err)
		}
		if r, s := number(sig[:32]...), number(sig[32:]...); r.Cmp(tc.r) != 0 || s.Cmp(tc.s) != 0 {
			t.Errorf("%x: %x and %x", der, r, s)
		}
		for n := range der {
			if fromDER(&sig, der[:n]) == nil {
				t.Errorf("%x: no error when cut to %d bytes", der, n)
			}
		}
		if fromDER(&sig, append(der, 0)) == nil {
			t.Errorf("%x: no error with a byte more", der)
		}
	}
	tooLarge, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).Add(large, big.NewInt(1)), number(1)})
	if err != nil {
		t.Fatal(err)
	}
	if fromDER(new([64]byte), tooLarge) == nil {
		t.Error("no error for a number of 33 bytes")
	}
}

// Pieces are found by the place of their link, in whatever order they came.
func TestPieces(t *testing.T) {
	var p *pieces
	all := make([]piece, maxBlock)
	for k := range maxBlock {
		i := k * 37 % maxBlock
		if p.at(i) != nil {
			t.Fatalf("piece %d is there before it was added", i)
		}
		p = p.with(i, &piece{})
		p = p.with(i, &all[i])
		if len(p.list) != k+1 {
			t.Fatalf("%d pieces; want %d", len(p.list), k+1)
		}
	}
	for i := range all {
		if p.at(i) != &all[i] {
			t.Errorf("piece %d is another's", i)
		}
	}
}
