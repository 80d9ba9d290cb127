package supervisor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
)

var attacks = []attack{
	// Made-up answers.
	{name: "version changed", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { return f.text(m, evilText) })
	}},
	{name: "second record added", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.Answer = append(m.Answer, evilTXT(f.qname)); return m })
	}},
	{name: "second string added", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			m.Answer[0].(*dns.TXT).Txt = append(m.Answer[0].(*dns.TXT).Txt, evilText)
			return m
		})
	}},
	{name: "signed by another key", event: discover.EventBogus, bogus: discover.WrongKey, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { return instead(f.evil, m.Question[0], m) })
	}},
	{name: "signed by another key, and that key given", event: discover.EventBogus, bogus: discover.WrongKey, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			if dns.IsSubDomain(zonetest.ZoneName, dns.CanonicalName(q.Name)) && q.Qtype != dns.TypeDS {
				return instead(f.evil, q, m)
			}
			return m
		})
	}},
	{name: "another tree from the TLD down", event: discover.EventBogus, bogus: discover.WrongKey, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			if q.Name != "." && !(q.Qtype == dns.TypeDS && dns.CountLabel(q.Name) == 1) {
				return instead(f.evil, q, m)
			}
			return m
		})
	}},
	{name: "another tree from the root down", event: discover.EventBogus, bogus: discover.WrongKey, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg { return instead(f.evil, q, m) })
	}},
	{name: "DS record exchanged", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.on(zonetest.ZoneName, dns.TypeDS, func(m *dns.Msg) *dns.Msg {
			ds := f.evil.Zone.Key.ToDS(dns.SHA256)
			ds.Hdr.Ttl = 3600
			m.Answer = append([]dns.RR{ds}, without(m.Answer, dns.TypeDS)...)
			return m
		})
	}},
	{name: "key added to DNSKEY", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.on(zonetest.ZoneName, dns.TypeDNSKEY, func(m *dns.Msg) *dns.Msg { m.Answer = append(m.Answer, f.evil.Zone.Key); return m })
	}},
	{name: "signed by the zone above", event: discover.EventBogus, bogus: discover.WrongSigner, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.Answer = f.tree.TLD.Sign([]dns.RR{evilTXT(f.qname)}); return m })
	}},
	{name: "signature of another record", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			other := new(dns.Msg)
			other.SetQuestion(name.Status(zonetest.ZoneName), dns.TypeTXT)
			f.tree.Zone.Answer(other)
			sig := other.Answer[1]
			sig.Header().Name = f.qname
			m.Answer = []dns.RR{evilTXT(f.qname), sig}
			return m
		})
	}},
	{name: "AD bit without signatures", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.AuthenticatedData = true; m.Answer = []dns.RR{evilTXT(f.qname)}; return m })
	}},
	{name: "alias into another zone", event: discover.EventBogus, bogus: discover.BadMessage, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			m.Answer = []dns.RR{zonetest.RR(t, f.qname+" 60 IN CNAME evil.test."), evilTXT("evil.test.")}
			return m
		})
	}},
	{name: "made from a wildcard", event: discover.EventBogus, bogus: discover.BadWildcard, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			set := f.tree.Zone.Sign([]dns.RR{zonetest.RR(t, "*._.example.org.v0."+zonetest.ZoneName+` 60 IN TXT "`+evilText+`"`)})
			for _, r := range set {
				r.Header().Name = f.qname
			}
			m.Answer = set
			return m
		})
	}},

	// Signatures taken away or weakened.
	{name: "signature removed", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.Answer = without(m.Answer, dns.TypeRRSIG); return f.text(m, evilText) })
	}},
	{name: "all signatures removed", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Answer, m.Ns = without(m.Answer, dns.TypeRRSIG, dns.TypeDNSKEY, dns.TypeDS), nil
			return m
		})
	}},
	{name: "DS removed without proof", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.on(zonetest.ZoneName, dns.TypeDS, func(m *dns.Msg) *dns.Msg { m.Answer, m.Ns = nil, nil; return m })
	}},
	{name: "unsigned delegation, proved with another delegation's record", event: discover.EventBogus, bogus: discover.BadDenial, start: func(t *testing.T, f *field) {
		f.edit(func() { f.tree.TLD.Set(zonetest.RR(t, "unsigned.test. 3600 IN NS ns.")) })
		f.on(zonetest.ZoneName, dns.TypeDS, func(m *dns.Msg) *dns.Msg { return proofOf(f.tree.TLD, "unsigned.test.", dns.TypeDS, m) })
	}},
	{name: "algorithm downgraded", event: discover.EventBogus, bogus: discover.Algorithm, start: func(t *testing.T, f *field) {
		weak := zonetest.NewZone(t, zonetest.ZoneName, dns.RSASHA1, "")
		f.module(func(m *dns.Msg) *dns.Msg { m.Answer = weak.Sign([]dns.RR{evilTXT(f.qname)}); return m })
	}},
	{name: "the TLD really removes the DS record", event: discover.EventInsecure, start: func(t *testing.T, f *field) {
		tld := *f.tree.TLD
		tld.Records = clone(tld.Records)
		delete(tld.Records, zonetest.RecordKey(zonetest.ZoneName, dns.TypeDS))
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			if dns.CanonicalName(q.Name) == zonetest.ZoneName && q.Qtype == dns.TypeDS {
				m.Answer = nil
				tld.Answer(m)
			}
			return m
		})
	}},

	// Absences.
	{name: "empty NXDOMAIN", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.Answer, m.Ns, m.Rcode = nil, nil, dns.RcodeNameError; return m })
	}},
	{name: "NXDOMAIN with a signed SOA record only", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			proofOf(f.tree.Zone, "x."+zonetest.ZoneName, dns.TypeTXT, m)
			m.Ns, m.Rcode = m.Ns[:2], dns.RcodeNameError
			return m
		})
	}},
	{name: "NXDOMAIN with the proof of another name", event: discover.EventBogus, bogus: discover.BadDenial, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { return proofOf(f.tree.Zone, "x."+zonetest.ZoneName, dns.TypeTXT, m) })
	}},
	{name: "no data with the name's own record", event: discover.EventBogus, bogus: discover.BadDenial, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { return proofOf(f.tree.Zone, f.qname, dns.TypeA, m) })
	}},
	{name: "the state of the log hidden", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.on(name.Status(zonetest.ZoneName), dns.TypeTXT, func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m })
	}},

	// Old answers.
	{name: "everything replayed", event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 90, zonetest.Epoch.Add(-30*time.Minute), "v1.0.0")
		f.record(f.tree)
		f.tree.Publish(t, 120, zonetest.Epoch, "v1.0.2")
		f.all(f.replay)
	}},
	{name: "everything replayed, too old to be fresh", event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.record(f.tree) // a size that was never seen to shrink
		f.advance(7 * time.Hour)
		f.tree.Publish(t, 120, f.now(), "v1.0.2")
		f.all(f.replay)
	}},
	{name: "the module's record replayed beside a fresh log size", event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.edit(func() { f.tree.Zone.Inception = zonetest.Epoch.Add(-48 * time.Hour) })
		f.tree.Publish(t, 80, zonetest.Epoch, "v1.0.0")
		f.record(f.tree)
		f.edit(func() { f.tree.Zone.Inception = zonetest.Epoch.Add(-time.Hour) })
		f.tree.Publish(t, 120, zonetest.Epoch, "v1.0.2")
		f.module(func(m *dns.Msg) *dns.Msg { return f.replay(m.Question[0], m) })
	}},
	{name: "the log's size replayed", event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 90, zonetest.Epoch.Add(-30*time.Minute), "v1.0.2")
		f.record(f.tree)
		f.tree.Publish(t, 120, zonetest.Epoch, "v1.0.2")
		f.on(name.Status(zonetest.ZoneName), dns.TypeTXT, func(m *dns.Msg) *dns.Msg { return f.replay(m.Question[0], m) })
	}},
	{name: "an old denial of the log's size replayed", event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.on(name.Status(zonetest.ZoneName), dns.TypeTXT, func(m *dns.Msg) *dns.Msg {
			z := *f.tree.Zone
			z.Records = clone(z.Records)
			delete(z.Records, zonetest.RecordKey(name.Status(zonetest.ZoneName), dns.TypeTXT))
			m.Answer = nil
			z.Answer(m)
			return m
		})
	}},
	{name: "expired signatures replayed", event: discover.EventBogus, bogus: discover.Expired, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			z := *f.tree.Zone
			z.Inception, z.Expiration = zonetest.Epoch.Add(-72*time.Hour), zonetest.Epoch.Add(-time.Hour)
			m.Answer = z.Sign(without(m.Answer, dns.TypeRRSIG))
			return m
		})
	}},
	{name: "signature of the future", event: discover.EventBogus, bogus: discover.NotYetValid, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			z := *f.tree.Zone
			z.Inception = zonetest.Epoch.Add(time.Hour)
			m.Answer = z.Sign(without(m.Answer, dns.TypeRRSIG))
			return m
		})
	}},
	{name: "lifetime stretched", harmless: true, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			for _, r := range m.Answer {
				r.Header().Ttl = 1 << 30
			}
			return m
		})
	}},

	// Silence and noise.
	{name: "everything dropped", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.all(func(dns.Question, *dns.Msg) *dns.Msg { return nil })
	}},
	{name: "the module's answer dropped", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.module(func(*dns.Msg) *dns.Msg { return nil })
	}},
	{name: "dropped for longer than max_silence", event: discover.EventSilence, start: func(t *testing.T, f *field) {
		f.advance(100 * time.Hour)
		f.edit(func() {
			for _, z := range f.tree.Zones {
				z.Expiration = f.now().Add(time.Hour)
			}
		})
		f.tree.Publish(t, 120, f.now(), "v1.0.2")
		f.all(func(dns.Question, *dns.Msg) *dns.Msg { return nil })
	}},
	{name: "delayed beyond the time limit", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
			time.Sleep(f.cfg.Timeout.D() + 100*time.Millisecond)
			return false
		})
	}},
	{name: "server failures", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Rcode, m.Answer, m.Ns = dns.RcodeServerFailure, nil, nil
			return m
		})
	}},
	{name: "refusals", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Rcode, m.Answer, m.Ns = dns.RcodeRefused, nil, nil
			return m
		})
	}},
	{name: "format errors", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Rcode, m.Answer, m.Ns = dns.RcodeFormatError, nil, nil
			return m
		})
	}},
	{name: "cut short over UDP, dropped over TCP", transport: "udp", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
			m.Truncated, m.Answer = true, nil
			return tcp
		})
	}},
	{name: "cut short over UDP, changed over TCP", transport: "udp", event: discover.EventBogus, bogus: discover.BadSignature, start: func(t *testing.T, f *field) {
		f.path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
			if !tcp {
				m.Truncated, m.Answer = true, nil
			} else if dns.CanonicalName(q.Question[0].Name) == f.qname {
				f.text(m, evilText)
			}
			return false
		})
	}},
	{name: "forged packets before the answer", transport: "udp", harmless: true, start: func(t *testing.T, f *field) {
		f.path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
			forged := f.text(m.Copy(), evilText)
			for range 20 {
				forged.Id++
				w.WriteMsg(forged)
			}
			return false
		})
	}},
	{name: "a flood of forged packets", transport: "udp", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
			forged := f.text(m.Copy(), evilText)
			for range 100 {
				forged.Id++
				w.WriteMsg(forged)
			}
			return true
		})
	}},
	{name: "answers to another question", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.Question[0].Name = "evil.test."; return m })
	}},
	{name: "questions sent back", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg { m.Response = false; return m })
	}},
	{name: "garbage", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {
		f.path.SetRaw(func(w dns.ResponseWriter, q, m *dns.Msg, tcp bool) bool {
			w.Write([]byte(strings.Repeat("\xc0\x0c", 300)))
			return true
		})
	}},
	{name: "case of letters not kept", transport: "udp", harmless: true, start: func(t *testing.T, f *field) {
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Question[0].Name = strings.ToLower(m.Question[0].Name)
			return m
		})
	}},
	{name: "records of another class", event: discover.EventBogus, bogus: discover.MissingSignature, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			for _, r := range m.Answer {
				r.Header().Class = dns.ClassCHAOS
			}
			return m
		})
	}},

	// Work.
	{name: "many signatures with one key tag", event: discover.EventBogus, bogus: discover.TooMuchWork, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { return zonetest.ManySignatures(t, m) })
	}},
	{name: "many keys", event: discover.EventBogus, bogus: discover.TooMuchWork, start: func(t *testing.T, f *field) {
		f.on(zonetest.ZoneName, dns.TypeDNSKEY, func(m *dns.Msg) *dns.Msg {
			for i := range 100 {
				k := *f.tree.Zone.Key
				k.Flags = uint16(256 + 2*i)
				m.Answer = append(m.Answer, &k)
			}
			return m
		})
	}},
	{name: "a large message", transport: "tcp", harmless: true, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg {
			for range 200 {
				m.Extra = append(m.Extra, zonetest.RR(t, `pad. 60 IN TXT "`+strings.Repeat("x", 250)+`"`))
			}
			return m
		})
	}},

	// Transports.
	{name: "TLS with a certificate for another name", transport: "tls", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {}},
	{name: "HTTPS with a certificate for another name", transport: "https", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {}},
	{name: "plain text where TLS is expected", transport: "tls-plain", event: discover.EventUnreachable, start: func(t *testing.T, f *field) {}},

	// What the zone's own key signs.
	{name: "a version taken back", keyHolder: true, event: discover.EventLower, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 130, zonetest.Epoch, "v1.0.0")
	}},
	{name: "versions taken away", keyHolder: true, event: discover.EventVanished, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 130, zonetest.Epoch, "v0.5.0")
	}},
	{name: "the module denied", keyHolder: true, event: discover.EventNotFound, start: func(t *testing.T, f *field) {
		f.edit(func() { delete(f.tree.Zone.Records, zonetest.RecordKey(f.qname, dns.TypeTXT)) })
	}},
	{name: "not of the format", keyHolder: true, event: discover.EventMalformed, start: func(t *testing.T, f *field) {
		f.edit(func() { f.tree.Zone.Set(zonetest.RR(t, f.qname+` 60 IN TXT "`+evilVersion+`"`)) })
	}},
	{name: "a pre-release as release", keyHolder: true, event: discover.EventMalformed, start: func(t *testing.T, f *field) {
		f.edit(func() { f.tree.Zone.Set(zonetest.RR(t, f.qname+` 60 IN TXT "v=v1.0.66-rc1 t=6a000000"`)) })
	}},
	{name: "two records", keyHolder: true, event: discover.EventMalformed, start: func(t *testing.T, f *field) {
		f.edit(func() { f.tree.Zone.Add(evilTXT(f.qname)) })
	}},
	{name: "a log of the future", keyHolder: true, event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 130, zonetest.Epoch.Add(24*time.Hour), evilVersion)
	}},
	{name: "a smaller log", keyHolder: true, event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 99, zonetest.Epoch, evilVersion)
	}},
	{name: "a log that stopped", keyHolder: true, event: discover.EventStale, start: func(t *testing.T, f *field) {
		f.advance(8 * time.Hour)
	}},
	{name: "another log of the same size", keyHolder: true, event: discover.EventConflict, start: func(t *testing.T, f *field) {
		f.tree.Publish(t, 100, zonetest.Epoch, evilVersion)
		hash := [32]byte{1, 2, 3}
		f.set(&dns.TXT{Hdr: dns.RR_Header{Name: name.Status(zonetest.ZoneName), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
			Txt: []string{name.StatusText{Size: 100, Hash: hash, At: zonetest.Epoch}.Format()}})
	}},
	{name: "different answers at one size", keyHolder: true, agree: 1, event: discover.EventConflict, start: func(t *testing.T, f *field) {
		f.module(func(m *dns.Msg) *dns.Msg { m.Answer = f.tree.Zone.Sign([]dns.RR{evilTXT(f.qname)}); return m })
	}},
	{name: "a version for one path alone, quorum of two", keyHolder: true, agree: 2, event: discover.EventDisagree, start: func(t *testing.T, f *field) {
		twin := *f.tree.Zone
		twin.Records = clone(twin.Records)
		target := &zonetest.Tree{Zones: []*zonetest.Zone{f.tree.Root, f.tree.TLD, &twin}, Root: f.tree.Root, TLD: f.tree.TLD, Zone: &twin}
		target.Publish(t, 150, zonetest.Epoch, evilVersion)
		f.all(func(q dns.Question, m *dns.Msg) *dns.Msg { return instead(target, q, m) })
	}},
}
