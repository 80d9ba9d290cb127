package zonetest

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
)

// OnQuestion is an attack on the answers to one question.
func OnQuestion(qname string, qtype uint16, f func(m *dns.Msg) *dns.Msg) func(dns.Question, *dns.Msg) *dns.Msg {
	return func(q dns.Question, m *dns.Msg) *dns.Msg {
		if dns.CanonicalName(q.Name) == qname && q.Qtype == qtype {
			return f(m)
		}
		return m
	}
}

func strip(rrs []dns.RR, t uint16) (out []dns.RR) {
	for _, r := range rrs {
		if r.Header().Rrtype != t {
			out = append(out, r)
		}
	}
	return out
}

// Unsigned takes all signatures out of an answer.
func Unsigned(m *dns.Msg) *dns.Msg {
	m.Answer, m.Ns = strip(m.Answer, dns.TypeRRSIG), strip(m.Ns, dns.TypeRRSIG)
	return m
}

// A Broken is one broken link of the tree.
type Broken struct {
	Name       string
	Algorithms *Algorithms // nil = Fast
	Module     string      // to ask for
	Break      func(t testing.TB, tr *Tree)
	Kind       string // of discover.BogusError; "insecure", "unreachable", "malformed", "nozone" or "ok" for others
	Says       string // words of the error
}

// Tree makes the tree and breaks it. The anchor is that of the root zone's key
// from before.
func (b Broken) Tree(t testing.TB) (tr *Tree, anchor *dns.DS) {
	algs := Fast
	if b.Algorithms != nil {
		algs = *b.Algorithms
	}
	tr = New(t, algs)
	anchor = tr.Root.Key.ToDS(dns.SHA256)
	tr.Mu.Lock()
	defer tr.Mu.Unlock()
	b.Break(t, tr)
	return tr, anchor
}

// otherKey is a zone of the same name with a key of another tag.
func otherKey(t testing.TB, z *Zone) *Zone {
	for {
		if other := NewZone(t, z.Name, dns.ECDSAP256SHA256, "compact"); other.Key.KeyTag() != z.Key.KeyTag() {
			return other
		}
	}
}

// withinSkew is half of the five minutes that clocks may differ, so that it is
// still within after a while, on either side.
const withinSkew = 150 * time.Second

// BrokenLinks breaks each link of the tree in turn.
func BrokenLinks(t testing.TB) []Broken {
	qname, err := name.Module(Module, ZoneName)
	if err != nil {
		t.Fatal(err)
	}
	const nxmodule = "example.org/nothing"
	return []Broken{
		{"changed text", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer[0].(*dns.TXT).Txt = []string{"v=v9.9.9 t=1"}
				return m
			})
		}, "bad_signature", "does not verify"},
		{"other key, same tag claimed", nil, Module, func(t testing.TB, tr *Tree) {
			evil := otherKey(t, tr.Zone)
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = evil.Sign([]dns.RR{m.Answer[0]})
				return m
			})
		}, "wrong_key", "is not a key of l.upkeep.test."},
		{"another key answers for the whole zone", nil, Module, func(t testing.TB, tr *Tree) {
			evil := NewZone(t, ZoneName, dns.ECDSAP256SHA256, "compact")
			tr.Zone.Key, tr.Zone.Priv = evil.Key, evil.Priv
			tr.Zone.Set(evil.Key)
		}, "wrong_key", "no key of l.upkeep.test. is the one that the DS record in test. names"},
		{"TLD's key exchanged", nil, Module, func(t testing.TB, tr *Tree) {
			evil := NewZone(t, "test.", dns.ECDSAP256SHA256, "nsec")
			tr.TLD.Key, tr.TLD.Priv = evil.Key, evil.Priv
			tr.TLD.Set(evil.Key)
		}, "wrong_key", "no key of test. is the one that the DS record in the root zone names"},
		{"root's key exchanged", nil, Module, func(t testing.TB, tr *Tree) {
			evil := NewZone(t, ".", dns.ECDSAP256SHA256, "nsec")
			tr.Root.Key, tr.Root.Priv = evil.Key, evil.Priv
			tr.Root.Set(evil.Key)
		}, "wrong_key", "no key of . is the one that file"},
		{"own DS of another key", nil, Module, func(t testing.TB, tr *Tree) {
			tr.TLD.Set(NewZone(t, ZoneName, dns.ECDSAP256SHA256, "").Key.ToDS(dns.SHA256))
		}, "wrong_key", "DS record in test."},
		{"zone expired", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Zone.Inception, tr.Zone.Expiration = Epoch.Add(-10*24*time.Hour), Epoch.Add(-3*24*time.Hour)
		}, "expired", "expired on 2026-11-18 12:00:00 UTC, 3 days ago"},
		{"TLD expired", nil, Module, func(t testing.TB, tr *Tree) { tr.TLD.Expiration = Epoch.Add(-time.Hour) }, "expired", "60 minutes ago"},
		{"root expired", nil, Module, func(t testing.TB, tr *Tree) { tr.Root.Expiration = Epoch.Add(-time.Hour) }, "expired", "DNSKEY ."},
		{"expired within the skew", nil, Module, func(t testing.TB, tr *Tree) { tr.Zone.Expiration = Epoch.Add(-withinSkew) }, "ok", ""},
		{"of the future", nil, Module, func(t testing.TB, tr *Tree) { tr.Zone.Inception = Epoch.Add(2 * time.Hour) }, "not_yet_valid", "valid only from"},
		{"of the future within the skew", nil, Module, func(t testing.TB, tr *Tree) { tr.Zone.Inception = Epoch.Add(withinSkew) }, "ok", ""},
		{"signature removed from the answer", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, Unsigned)
		}, "missing_signature", "has no signature"},
		{"signature removed from DNSKEY", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(ZoneName, dns.TypeDNSKEY, Unsigned)
		}, "missing_signature", "DNSKEY record of l.upkeep.test. has no signature"},
		{"signature removed from DS", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(ZoneName, dns.TypeDS, Unsigned)
		}, "missing_signature", "DS record of l.upkeep.test. has no signature"},
		{"DNSKEY removed", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(ZoneName, dns.TypeDNSKEY, func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m })
		}, "missing_signature", "has no DNSKEY record"},
		{"DS removed, unproved", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(ZoneName, dns.TypeDS, func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m })
		}, "missing_signature", "nothing signed proves it"},
		{"all signatures removed everywhere", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { return Unsigned(m) }
		}, "missing_signature", "DNSKEY record of . has no signature"},
		{"unsigned delegation inserted by the parent, NSEC", nil, Module, func(t testing.TB, tr *Tree) {
			delete(tr.TLD.Records, RecordKey(ZoneName, dns.TypeDS))
		}, "insecure", "is delegated without a DS record in test."},
		{"unsigned delegation, NSEC3 opt-out", &Algorithms{Root: dns.ED25519, TLD: dns.ED25519, Zone: dns.ED25519, TLDDenial: "nsec3", ZoneDenial: "compact"}, Module, func(t testing.TB, tr *Tree) {
			tr.TLD.OptOut = true
			delete(tr.TLD.Records, RecordKey(ZoneName, dns.TypeDS))
		}, "insecure", "without a DS record"},
		{"DS of SHA-1 only", nil, Module, func(t testing.TB, tr *Tree) {
			tr.TLD.Set(tr.Zone.Key.ToDS(dns.SHA1))
		}, "insecure", "not accepted"},
		{"algorithm RSASHA1", &Algorithms{Root: dns.RSASHA256, TLD: dns.ECDSAP256SHA256, Zone: dns.RSASHA1, TLDDenial: "nsec", ZoneDenial: "compact"}, Module, func(t testing.TB, tr *Tree) {}, "insecure", "not accepted"},
		{"algorithm downgrade to a key that is not in the DS", nil, Module, func(t testing.TB, tr *Tree) {
			weak := NewZone(t, ZoneName, dns.RSASHA1, "")
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = weak.Sign([]dns.RR{m.Answer[0]})
				return m
			})
		}, "algorithm", "RSASHA1"},
		{"signed by the zone above", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = tr.TLD.Sign([]dns.RR{m.Answer[0]})
				return m
			})
		}, "wrong_signer", "is by the zone test."},
		{"NXDOMAIN forged", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer, m.Rcode = nil, dns.RcodeNameError
				return m
			})
		}, "missing_signature", "forges absences"},
		{"NXDOMAIN with another name's proof", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				other := new(dns.Msg)
				other.SetQuestion("zzz.v0."+ZoneName, dns.TypeTXT)
				tr.Zone.Answer(other)
				m.Answer, m.Ns, m.Rcode = nil, other.Ns, dns.RcodeNameError
				return m
			})
		}, "bad_denial", "no NSEC record is about this name"},
		{"no data with the name's own proof, which lists TXT", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				other := new(dns.Msg)
				other.SetQuestion(qname, dns.TypeA)
				tr.Zone.Answer(other)
				m.Answer, m.Ns = nil, other.Ns
				return m
			})
		}, "bad_denial", "it lists the type"},
		{"denial of an unknown module stripped", nil, nxmodule, func(t testing.TB, tr *Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { m.Ns = strip(m.Ns, dns.TypeNSEC); return m }
		}, "missing_signature", "nothing signed proves it"},
		{"zone denied by the TLD", nil, Module, func(t testing.TB, tr *Tree) {
			delete(tr.TLD.Records, RecordKey(ZoneName, dns.TypeDS))
			delete(tr.TLD.Records, RecordKey(ZoneName, dns.TypeNS))
		}, "nozone", "test. signs that upkeep.test. does not exist"},
		{"alias", nil, Module, func(t testing.TB, tr *Tree) {
			delete(tr.Zone.Records, RecordKey(qname, dns.TypeTXT))
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = tr.Zone.Sign([]dns.RR{RR(t, qname+" 60 IN CNAME evil.test.")})
				return m
			})
		}, "bad_message", "alias"},
		{"wildcard instead of the name", nil, nxmodule, func(t testing.TB, tr *Tree) {
			nx, _ := name.Module(nxmodule, ZoneName)
			tr.Attack = OnQuestion(nx, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				set := tr.Zone.Sign([]dns.RR{RR(t, "*._.example.org.v0."+ZoneName+` 60 IN TXT "v=v9.0.0 t=1"`)})
				for _, r := range set {
					r.Header().Name = nx
				}
				m.Answer, m.Ns = set, nil
				return m
			})
		}, "bad_wildcard", "without proof that the name itself does not exist"},
		{"two TXT records", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Zone.Add(RR(t, qname+` 60 IN TXT "v=v9.0.0 t=1"`))
		}, "malformed", "has 2 TXT records"},
		{"not a release", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Zone.Set(RR(t, qname+` 60 IN TXT "v=v1.2.3-rc1 t=1"`))
		}, "malformed", "not a release"},
		{"another module's major version", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Zone.Set(RR(t, qname+` 60 IN TXT "v=v2.0.0 t=1"`))
		}, "malformed", "not a release of this module"},
		{"server failure", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeServerFailure; return m }
		}, "unreachable", "SERVFAIL"},
		{"refused", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeRefused; m.Answer = nil; return m })
		}, "unreachable", "REFUSED"},
		{"silence", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { return nil }
		}, "unreachable", "did not answer in time"},
		{"many keys with one tag", nil, Module, func(t testing.TB, tr *Tree) {
			tr.Attack = OnQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg { return ManySignatures(t, m) })
		}, "too_much_work", "made to cost time"},
	}
}

// ManySignatures has an answer come with a hundred wrong signatures of the same
// key instead of its good one.
func ManySignatures(t testing.TB, m *dns.Msg) *dns.Msg {
	good := m.Answer[1].(*dns.RRSIG)
	raw, err := base64.StdEncoding.DecodeString(good.Signature)
	if err != nil {
		t.Error(err)
	}
	m.Answer = m.Answer[:1]
	for i := range 100 {
		// One byte differs from the good signature, in each in another way.
		bad, sig := *good, slices.Clone(raw)
		sig[8] ^= byte(i + 1)
		bad.Signature = base64.StdEncoding.EncodeToString(sig)
		m.Answer = append(m.Answer, &bad)
	}
	return m
}
