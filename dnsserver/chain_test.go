package dnsserver

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
)

// A chain of random names, put in in random portions, is compared with a
// sorted list of them, at every name, beside and below it.
func TestChain(t *testing.T) {
	origin, err := packName(testZone)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(1)
	if os.Getenv("UPKEEP_TEST_LONG") == "1" {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 0))
	random := func() []byte {
		var name []byte
		for range 1 + r.IntN(5) {
			l := make([]byte, 1+r.IntN(3))
			for i := range l {
				l[i] = "\x00\x01\x02-09_az~\xff"[r.IntN(11)]
			}
			name = append(append(name, byte(len(l))), l...)
		}
		return append(name, origin...)
	}
	key := func(name []byte) []byte { return appendKey(nil, name, len(name)-len(origin)) }
	c := newChain()
	tr := truth{names: [][]byte{origin}}
	txt := map[string]bool{string(origin): false}
	for range 20 {
		var links []link
		for range r.IntN(100) {
			name := random()
			if r.IntN(4) == 0 {
				name = tr.names[r.IntN(len(tr.names))]
			}
			l := link{key: key(name), txt: r.IntN(2) == 0}
			if got := appendKeyName(nil, l.key, origin); !bytes.Equal(got, name) {
				t.Fatalf("%x became %x by its key %x", name, got, l.key)
			}
			links = append(links, l)
			txt[string(name)] = l.txt
			tr.names = append(tr.names, name)
		}
		c = c.with(links)
		slices.SortFunc(tr.names, compareNames)
		tr.names = slices.CompactFunc(tr.names, bytes.Equal)
	}
	if c.n != len(tr.names) {
		t.Fatalf("seed %d: %d names in the chain; want %d", seed, c.n, len(tr.names))
	}
	check := func(name []byte) {
		t.Helper()
		p := c.find(key(name))
		l, behind := c.between(p)
		before := appendKeyName(nil, l.key, origin)
		next := appendKeyName(nil, behind, origin)
		i, exact := slices.BinarySearchFunc(tr.names, name, compareNames)
		if !exact {
			i--
		}
		encloser := name
		for !tr.exists(encloser) {
			encloser = parentOf(encloser)
		}
		got := fmt.Sprint(before, next, l.txt, p.exact, p.exact || p.below, appendKeyName(nil, key(name)[:p.encloser], origin))
		want := fmt.Sprint(tr.names[i], tr.names[(i+1)%len(tr.names)], txt[string(tr.names[i])], exact, tr.exists(name), encloser)
		if got != want {
			t.Fatalf("seed %d: %x\n%s; want\n%s", seed, name, got, want)
		}
	}
	for _, name := range tr.names {
		check(name)
		check(append([]byte("\x01*"), name...))
		if p := parentOf(name); len(p) >= len(origin) {
			check(p)
		}
	}
	for range 300 {
		check(random())
	}
}

// A change costs two signatures: the record before the new name, and its own.
// All others are still good, also those that a resolver has.
func TestChainGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idx := testIndex()
		// With so much room no signature takes the place of another one.
		h, err := NewHandler(with(DenialNSEC), testKeys(t, "ecdsap256sha256"), idx, Options{Limits: Limits{Answers: 1 << 16}})
		if err != nil {
			t.Fatal(err)
		}
		go h.Run(t.Context())
		synctest.Wait()
		all := func() {
			t.Helper()
			for _, p := range probes() {
				exchange(t, h, question(p.name, dns.StringToType[p.typ], true), client)
			}
			for _, n := range newTruth(t, h).names {
				exchange(t, h, question(showName(n), dns.TypeNSEC, true), client)
			}
		}
		all()
		for i, tc := range []struct {
			mod        index.Module
			signatures uint64 // beside those of the SOA and status records, twice the SOA for its two TTLs
		}{
			{memindex.Release("example.org/a/very/deep/path", "v1.0.0", 1), 3}, // with its TXT record
			{index.Module{Path: "zzz.example/last", Pseudo: &index.Version{Version: "v0.0.0-20200101000000-abcdefabcdef"}}, 2},
			{memindex.Release("zzz.example/last", "v1.0.0", 1), 2}, // now with a TXT record
			{memindex.Release("github.com/mjl-/mox", "v0.0.16", 1), 1},
			{memindex.Release("example.org/much."+strings.Repeat("too", 40)+"/long", "v1.0.0", 1), 0},
		} {
			before := h.stat.sigs.Load()
			idx.Set(memindex.Head(71848829+int64(i)), tc.mod)
			synctest.Wait()
			all()
			if text, err := name.Module(tc.mod.Path, testZone); err == nil {
				exchange(t, h, question(text, dns.TypeTXT, true), client)
			}
			if n := h.stat.sigs.Load() - before; n != tc.signatures+3 {
				t.Errorf("%s: %d signatures; want %d and 3", tc.mod.Path, n, tc.signatures)
			}
		}
	})
}

// brokenList is an index whose list fails now and then.
type brokenList struct {
	*memindex.Index
	fail bool
}

func (b *brokenList) Each(f func(path string, released bool) error) error {
	if b.fail {
		return errors.New("the disk is gone")
	}
	return b.Index.Each(f)
}

// Without a list there is no chain; a failure leaves the old view, and what
// was missed meanwhile is caught up with.
func TestChainFails(t *testing.T) {
	if _, err := NewHandler(with(DenialNSEC), testKeys(t, "ed25519"), struct{ index.Reader }{testIndex()}, Options{}); !errors.Is(err, errNoLister) {
		t.Errorf("an index without a list: %v", err)
	}
	idx := &brokenList{Index: testIndex()}
	h := testHandler(t, with(DenialNSEC), idx)
	exists := func() bool {
		packet, err := question("new._.example.org.v0."+testZone, dns.TypeTXT, true).Pack()
		if err != nil {
			t.Fatal(err)
		}
		out, _ := h.Respond(nil, packet, client, true)
		return out[3]&15 == dns.RcodeSuccess
	}
	idx.Changes(0) // somebody else read the changes: all must be read again
	idx.Set(memindex.Head(71848830), memindex.Release("example.org/new", "v1.0.0", 1))
	idx.fail = true
	if err := h.refresh(true); err == nil || exists() {
		t.Errorf("a failing list: %v", err)
	}
	idx.fail = false
	if err := h.refresh(true); err != nil || !exists() {
		t.Errorf("the list is back: %v", err)
	}
}

// Another configuration adds and takes away names of the zone's own.
func TestChainReload(t *testing.T) {
	h := testHandler(t, with(DenialNSEC), testIndex())
	keys := h.view.Load().zone.keys
	for _, records := range [][]string{{"new.a.www TXT x", "@ CAA 0 issue \"ca.example.net\""}, {"aaa A 192.0.2.3"}, nil, {"www A 192.0.2.2"}} {
		cfg := with(DenialNSEC)
		cfg.Records = records
		if err := h.Reload(cfg, keys, h.view.Load().limits); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"aaa.", "new.a.www.", "a.www.", "www.", "zzz.", "b.c.", "a.b.c.", "ns0.", "_.v0.", ""} {
			for _, typ := range []uint16{dns.TypeA, dns.TypeCAA, dns.TypeNSEC} {
				exchange(t, h, question(name+testZone, typ, true), client)
			}
		}
	}
	if err := h.Reload(testConfig(), keys, h.view.Load().limits); err != nil { // and back
		t.Fatal(err)
	}
	exchange(t, h, question("missing."+testZone, dns.TypeA, true), client)
}

// More records than are kept.
func TestChainRoom(t *testing.T) {
	idx := memindex.New()
	var mods []index.Module
	for i := range 2000 {
		mods = append(mods, memindex.Release(fmt.Sprintf("example.org/m%d", i), "v1.0.0", 1))
	}
	idx.Set(memindex.Head(2000), mods...)
	h := testHandler(t, with(DenialNSEC), idx)
	for i := range 2000 {
		packet, err := question(fmt.Sprintf("m%d-._.example.org.v0.%s", i, testZone), dns.TypeTXT, true).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if out, ok := h.Respond(nil, packet, client, true); !ok || out[3]&15 != dns.RcodeNameError {
			t.Fatalf("%x", out)
		}
	}
	count := func() (n int64) {
		for _, b := range h.view.Load().chain.blocks {
			n += countSigned(b.links(nil))
		}
		return n
	}
	if n := h.pieces.Load(); n > h.view.Load().maxPieces() || n < h.view.Load().maxPieces()/2 || n != count() {
		t.Errorf("%d records are kept, and counted as %d; the limit is %d", count(), n, h.view.Load().maxPieces())
	}
	mods = nil
	for i := range 500 {
		mods = append(mods, memindex.Release(fmt.Sprintf("example.org/m%d-x", 3*i), "v1.0.0", 1))
	}
	idx.Set(memindex.Head(2500), mods...)
	before := count()
	if err := h.refresh(true); err != nil {
		t.Fatal(err)
	}
	if n := h.pieces.Load(); n != count() || n >= before || n == 0 {
		t.Errorf("after changes %d records are kept, and counted as %d; before it were %d", count(), n, before)
	}
}

// Names above modules whose own names are too long exist, with a chain as with
// compact denial, and stay what they are when they become modules.
func TestChainAboveLongNames(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, denial := range []string{DenialCompact, DenialNSEC} {
		idx := testIndex()
		idx.Set(memindex.Head(71848829), memindex.Release("only.example/user/"+long, "v1.0.0", 1), memindex.Release("only.example/"+long, "v1.0.0", 1),
			memindex.Release("gocloud.dev/"+long, "v1.0.0", 1), memindex.Release("released.example/a", "v1.0.0", 1), memindex.Release("released.example/a/"+long, "v1.0.0", 1))
		cfg := testConfig()
		cfg.Denial = denial
		h := testHandler(t, cfg, idx)
		check := func(name, text string, exists bool) {
			t.Helper()
			for _, do := range []bool{true, false} {
				packet, _ := question(name+".v0."+testZone, dns.TypeTXT, do).Pack()
				out, _ := h.Respond(nil, packet, client, true)
				r := judge(t, h, packet, out, client)
				missing := r.Rcode == dns.RcodeNameError
				for _, rr := range r.Ns {
					nsec, ok := rr.(*dns.NSEC)
					missing = missing || ok && slices.Contains(nsec.TypeBitMap, dns.TypeNXNAME)
				}
				if texts(r) != text || missing == exists {
					t.Errorf("%s, %s, DO %v: %v", denial, name, do, r)
				}
			}
		}
		check("user._.only.example", "", true)
		check("_.only.example", "", true)
		check("only.example", "", true)
		check("example", "", true)
		check("x.user._.only.example", "", false)
		check("other._.only.example", "", false)
		check("_.gocloud.dev", "", true)
		check("gocloud.dev", "v=v0.40.0 t=60000000", true)
		check("a._.released.example", "v=v1.0.0 t=1", true)
		idx.Set(memindex.Head(71848830), memindex.Release("only.example/user", "v2.0.0", 1), memindex.Release("only.example/other/"+long, "v1.0.0", 1))
		if err := h.refresh(true); err != nil {
			t.Fatal(err)
		}
		check("user._.only.example", "v=v2.0.0 t=1", true)
		check("other._.only.example", "", true)
		idx.Set(memindex.Head(71848831), memindex.Release("only.example/user/"+long, "v1.1.0", 1))
		if err := h.refresh(true); err != nil {
			t.Fatal(err)
		}
		check("user._.only.example", "v=v2.0.0 t=1", true)
	}
}
