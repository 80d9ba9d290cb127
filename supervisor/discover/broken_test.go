package discover

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// change replaces the records of one name and type in an answer by those that
// f returns, signatures excluded.
func onQuestion(qname string, qtype uint16, f func(m *dns.Msg) *dns.Msg) func(dns.Question, *dns.Msg) *dns.Msg {
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

func unsigned(m *dns.Msg) *dns.Msg {
	m.Answer, m.Ns = strip(m.Answer, dns.TypeRRSIG), strip(m.Ns, dns.TypeRRSIG)
	return m
}

// A broken is one broken link of the tree.
type broken struct {
	name   string
	algs   *zonetest.Algorithms
	module string
	do     func(t *testing.T, tr *zonetest.Tree)
	kind   string // of BogusError; "insecure", "unreachable", "malformed", "nozone" or "ok" for others
	says   string
}

// brokenLinks breaks each link of the tree in turn.
func brokenLinks(t *testing.T) []broken {
	qname, err := name.Module(hello, testZone)
	if err != nil {
		t.Fatal(err)
	}
	const nxmodule = "example.org/nothing"
	return []broken{
		{"changed text", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer[0].(*dns.TXT).Txt = []string{"v=v9.9.9 t=1"}
				return m
			})
		}, BadSignature, "does not verify"},
		{"other key, same tag claimed", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			evil := zonetest.NewZone(t, testZone, dns.ECDSAP256SHA256, "compact")
			evil.Key.Hdr.Name = testZone
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = evil.Sign([]dns.RR{m.Answer[0]})
				return m
			})
		}, WrongKey, "is not a key of l.upkeep.test."},
		{"another key answers for the whole zone", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			evil := zonetest.NewZone(t, testZone, dns.ECDSAP256SHA256, "compact")
			tr.Zone.Key, tr.Zone.Priv = evil.Key, evil.Priv
			tr.Zone.Set(evil.Key)
		}, WrongKey, "no key of l.upkeep.test. is the one that the DS record in test. names"},
		{"TLD's key exchanged", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			evil := zonetest.NewZone(t, "test.", dns.ECDSAP256SHA256, "nsec")
			tr.TLD.Key, tr.TLD.Priv = evil.Key, evil.Priv
			tr.TLD.Set(evil.Key)
		}, WrongKey, "no key of test. is the one that the DS record in the root zone names"},
		{"root's key exchanged", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			evil := zonetest.NewZone(t, ".", dns.ECDSAP256SHA256, "nsec")
			tr.Root.Key, tr.Root.Priv = evil.Key, evil.Priv
			tr.Root.Set(evil.Key)
		}, WrongKey, "no key of . is the one that file"},
		{"own DS of another key", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.TLD.Set(zonetest.NewZone(t, testZone, dns.ECDSAP256SHA256, "").Key.ToDS(dns.SHA256))
		}, WrongKey, "DS record in test."},
		{"zone expired", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Zone.Inception, tr.Zone.Expiration = epoch.Add(-10*24*time.Hour), epoch.Add(-3*24*time.Hour)
		}, Expired, "expired on 2026-11-18 12:00:00 UTC, 3 days ago"},
		{"TLD expired", nil, hello, func(t *testing.T, tr *zonetest.Tree) { tr.TLD.Expiration = epoch.Add(-time.Hour) }, Expired, "60 minutes ago"},
		{"root expired", nil, hello, func(t *testing.T, tr *zonetest.Tree) { tr.Root.Expiration = epoch.Add(-time.Hour) }, Expired, "DNSKEY ."},
		{"expired within the skew", nil, hello, func(t *testing.T, tr *zonetest.Tree) { tr.Zone.Expiration = epoch.Add(-4 * time.Minute) }, "ok", ""},
		{"of the future", nil, hello, func(t *testing.T, tr *zonetest.Tree) { tr.Zone.Inception = epoch.Add(2 * time.Hour) }, NotYetValid, "valid only from"},
		{"of the future within the skew", nil, hello, func(t *testing.T, tr *zonetest.Tree) { tr.Zone.Inception = epoch.Add(4 * time.Minute) }, "ok", ""},
		{"signature removed from the answer", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, unsigned)
		}, MissingSignature, "has no signature"},
		{"signature removed from DNSKEY", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(testZone, dns.TypeDNSKEY, unsigned)
		}, MissingSignature, "DNSKEY record of l.upkeep.test. has no signature"},
		{"signature removed from DS", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(testZone, dns.TypeDS, unsigned)
		}, MissingSignature, "DS record of l.upkeep.test. has no signature"},
		{"DNSKEY removed", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(testZone, dns.TypeDNSKEY, func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m })
		}, MissingSignature, "has no DNSKEY record"},
		{"DS removed, unproved", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(testZone, dns.TypeDS, func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m })
		}, MissingSignature, "nothing signed proves it"},
		{"all signatures removed everywhere", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { return unsigned(m) }
		}, MissingSignature, "DNSKEY record of . has no signature"},
		{"unsigned delegation inserted by the parent, NSEC", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeDS))
		}, "insecure", "is delegated without a DS record in test."},
		{"unsigned delegation, NSEC3 opt-out", &zonetest.Algorithms{Root: dns.ED25519, TLD: dns.ED25519, Zone: dns.ED25519, TLDDenial: "nsec3", ZoneDenial: "compact"}, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.TLD.OptOut = true
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeDS))
		}, "insecure", "without a DS record"},
		{"DS of SHA-1 only", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.TLD.Set(tr.Zone.Key.ToDS(dns.SHA1))
		}, "insecure", "not accepted"},
		{"algorithm RSASHA1", &zonetest.Algorithms{Root: dns.RSASHA256, TLD: dns.ECDSAP256SHA256, Zone: dns.RSASHA1, TLDDenial: "nsec", ZoneDenial: "compact"}, hello, func(t *testing.T, tr *zonetest.Tree) {}, "insecure", "not accepted"},
		{"algorithm downgrade to a key that is not in the DS", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			weak := zonetest.NewZone(t, testZone, dns.RSASHA1, "")
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = weak.Sign([]dns.RR{m.Answer[0]})
				return m
			})
		}, Algorithm, "RSASHA1"},
		{"signed by the zone above", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = tr.TLD.Sign([]dns.RR{m.Answer[0]})
				return m
			})
		}, WrongSigner, "is by the zone test."},
		{"NXDOMAIN forged", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer, m.Rcode = nil, dns.RcodeNameError
				return m
			})
		}, MissingSignature, "forges absences"},
		{"NXDOMAIN with another name's proof", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				other := new(dns.Msg)
				other.SetQuestion("zzz.v0."+testZone, dns.TypeTXT)
				tr.Zone.Answer(other)
				m.Answer, m.Ns, m.Rcode = nil, other.Ns, dns.RcodeNameError
				return m
			})
		}, BadDenial, "no NSEC record is about this name"},
		{"no data with the name's own proof, which lists TXT", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				other := new(dns.Msg)
				other.SetQuestion(qname, dns.TypeA)
				tr.Zone.Answer(other)
				m.Answer, m.Ns = nil, other.Ns
				return m
			})
		}, BadDenial, "it lists the type"},
		{"denial of an unknown module stripped", nil, nxmodule, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { m.Ns = strip(m.Ns, dns.TypeNSEC); return m }
		}, MissingSignature, "nothing signed proves it"},
		{"zone denied by the TLD", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeDS))
			delete(tr.TLD.Records, zonetest.RecordKey(testZone, dns.TypeNS))
		}, "nozone", "test. signs that upkeep.test. does not exist"},
		{"alias", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			delete(tr.Zone.Records, zonetest.RecordKey(qname, dns.TypeTXT))
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				m.Answer = tr.Zone.Sign([]dns.RR{zonetest.RR(t, qname+" 60 IN CNAME evil.test.")})
				return m
			})
		}, BadMessage, "alias"},
		{"wildcard instead of the name", nil, nxmodule, func(t *testing.T, tr *zonetest.Tree) {
			nx, _ := name.Module(nxmodule, testZone)
			tr.Attack = onQuestion(nx, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				set := tr.Zone.Sign([]dns.RR{zonetest.RR(t, "*._.example.org.v0."+testZone+` 60 IN TXT "v=v9.0.0 t=1"`)})
				for _, r := range set {
					r.Header().Name = nx
				}
				m.Answer, m.Ns = set, nil
				return m
			})
		}, BadWildcard, "without proof that the name itself does not exist"},
		{"two TXT records", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Zone.Add(zonetest.RR(t, qname+` 60 IN TXT "v=v9.0.0 t=1"`))
		}, "malformed", "has 2 TXT records"},
		{"not a release", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Zone.Set(zonetest.RR(t, qname+` 60 IN TXT "v=v1.2.3-rc1 t=1"`))
		}, "malformed", "not a release"},
		{"another module's major version", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Zone.Set(zonetest.RR(t, qname+` 60 IN TXT "v=v2.0.0 t=1"`))
		}, "malformed", "not a release of this module"},
		{"server failure", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeServerFailure; return m }
		}, "unreachable", "SERVFAIL"},
		{"refused", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeRefused; m.Answer = nil; return m })
		}, "unreachable", "REFUSED"},
		{"silence", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg { return nil }
		}, "unreachable", "did not answer in time"},
		{"many keys with one tag", nil, hello, func(t *testing.T, tr *zonetest.Tree) {
			tr.Attack = onQuestion(qname, dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
				good := m.Answer[1].(*dns.RRSIG)
				m.Answer = m.Answer[:1]
				for i := range maxVerify + 1 {
					bad := *good
					bad.Signature = good.Signature[:10] + string(rune('A'+i%26)) + string(rune('A'+i/26)) + good.Signature[12:]
					m.Answer = append(m.Answer, &bad)
				}
				return m
			})
		}, TooMuchWork, "made to cost time"},
	}
}

// The sentence must say what is wrong.
func TestBroken(t *testing.T) {
	for _, tc := range brokenLinks(t) {
		t.Run(tc.name, func(t *testing.T) {
			algs := zonetest.Fast
			if tc.algs != nil {
				algs = *tc.algs
			}
			tr := zonetest.New(t, algs)
			d := discoverer(t, tr, func(c *Config, _ *Options) { c.Sources = []string{"tcp://" + tr.Addr} })
			tr.Mu.Lock()
			tc.do(t, tr)
			tr.Mu.Unlock()
			if tc.name == "silence" {
				d.cfg.Timeout /= 20
			}
			a, err := d.Ask(t.Context(), tc.module)
			if tc.kind == "ok" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || len(a.Versions) != 0 {
				t.Fatalf("believed: %v, %v", a.Versions, err)
			}
			var bogus *BogusError
			var insecure *InsecureError
			var malformed *malformedError
			got, event := "", ""
			switch {
			case errors.As(err, &bogus):
				got, event = bogus.Kind, EventBogus
			case errors.As(err, &insecure):
				got, event = "insecure", EventInsecure
			case errors.As(err, &malformed):
				got, event = "malformed", EventMalformed
			case errors.Is(err, ErrNoZone):
				got, event = "nozone", EventUnreachable
			case errors.Is(err, ErrUnreachable):
				got, event = "unreachable", EventUnreachable
			}
			if got != tc.kind || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v; want %s with %q", got, err, tc.kind, tc.says)
			}
			if len(a.Events) != 1 || a.Events[0].Kind != event || a.Fresh.StaleSince.IsZero() {
				t.Errorf("events %+v; want one %s", a.Events, event)
			}
		})
	}
}
