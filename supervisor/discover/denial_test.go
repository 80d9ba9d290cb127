package discover

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// A wildcard stands for a name only with proof that the name is not there.
func TestWildcard(t *testing.T) {
	ks, priv := fuzzKeys(t)
	rr := func(s string) []dns.RR {
		r, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return fuzzSign(t, ks, priv, r)
	}
	hash := func(n string) string { return dns.HashName(n, dns.SHA1, 0, "") }
	qname := "a.c." + testZone
	closer := "c." + testZone
	// The neighbours of a hash.
	around := func(h string) (string, string) {
		b := []byte(h)
		lo, hi := append([]byte(nil), b...), append([]byte(nil), b...)
		lo[0], hi[0] = '0', 'V'
		return strings.ToLower(string(lo)), string(hi)
	}
	lo, hi := around(hash(closer))
	for _, tc := range []struct {
		name string
		ns   []dns.RR
		kind string
	}{
		{"NSEC around the name", rr("b." + testZone + " 60 IN NSEC d." + testZone + " A"), ""},
		{"NSEC after the name", rr("d." + testZone + " 60 IN NSEC e." + testZone + " A"), BadWildcard},
		{"NSEC whose next name is below the name", rr("b." + testZone + " 60 IN NSEC x." + qname + " A"), BadWildcard},
		{"NSEC3 around the next closer name", rr(lo + "." + testZone + " 60 IN NSEC3 1 0 0 - " + hi + " A"), ""},
		{"NSEC3 with opt-out", rr(lo + "." + testZone + " 60 IN NSEC3 1 1 0 - " + hi + " A"), BadWildcard},
		{"nothing", nil, BadWildcard},
	} {
		set := rr("*." + testZone + ` 60 IN TXT "v=v1.0.0 t=1"`)
		for _, r := range set {
			r.Header().Name = qname
		}
		m := new(dns.Msg)
		m.Answer, m.Ns = set, tc.ns
		c := &checker{now: epoch}
		txt, err := c.txt(m, qname, ks)
		if bogusKind(err) != tc.kind || (err == nil) != txt.found {
			t.Errorf("%s: %+v, %v; want %q", tc.name, txt, err, tc.kind)
		}
	}
}

// What a proof of absence says, and what it does not.
func TestDenied(t *testing.T) {
	ks, priv := fuzzKeys(t)
	zone := testZone
	for _, tc := range []struct {
		name  string
		qname string
		qtype uint16
		recs  []string
		want  string // "nxdomain", "nodata", "cut", "optout" or a kind of BogusError
	}{
		{"NSEC of the name", "b." + zone, dns.TypeTXT, []string{"b." + zone + " 60 IN NSEC c." + zone + " A RRSIG NSEC"}, "nodata"},
		{"NSEC of the name lists it", "b." + zone, dns.TypeTXT, []string{"b." + zone + " 60 IN NSEC c." + zone + " TXT RRSIG NSEC"}, BadDenial},
		{"NSEC of the name lists an alias", "b." + zone, dns.TypeTXT, []string{"b." + zone + " 60 IN NSEC c." + zone + " CNAME RRSIG NSEC"}, BadDenial},
		{"NSEC of a delegation", "b." + zone, dns.TypeTXT, []string{"b." + zone + " 60 IN NSEC c." + zone + " NS RRSIG NSEC"}, BadDenial},
		{"NSEC of a delegation, for DS", "b." + zone, dns.TypeDS, []string{"b." + zone + " 60 IN NSEC c." + zone + " NS RRSIG NSEC"}, "cut"},
		{"NSEC of the zone below, for DS", "b." + zone, dns.TypeDS, []string{"b." + zone + " 60 IN NSEC c." + zone + " NS SOA RRSIG NSEC"}, BadDenial},
		{"NSEC around the name and the wildcard", "b." + zone, dns.TypeTXT, []string{"a." + zone + " 60 IN NSEC c." + zone + " A", zone + " 60 IN NSEC a." + zone + " SOA"}, "nxdomain"},
		{"NSEC around the name, one for both", "b." + zone, dns.TypeTXT, []string{zone + " 60 IN NSEC c." + zone + " SOA"}, "nxdomain"},
		{"NSEC around the name, wildcard not excluded", "b." + zone, dns.TypeTXT, []string{"a." + zone + " 60 IN NSEC c." + zone + " A"}, BadDenial},
		{"NSEC around the name, wildcard without the type", "b." + zone, dns.TypeTXT, []string{"a." + zone + " 60 IN NSEC c." + zone + " A", "*." + zone + " 60 IN NSEC a." + zone + " A"}, "nodata"},
		{"NSEC around the name, wildcard with the type", "b." + zone, dns.TypeTXT, []string{"a." + zone + " 60 IN NSEC c." + zone + " A", "*." + zone + " 60 IN NSEC a." + zone + " TXT"}, BadDenial},
		{"NSEC, empty non-terminal", "b." + zone, dns.TypeTXT, []string{"a." + zone + " 60 IN NSEC x.b." + zone + " A"}, "nodata"},
		{"NSEC, last of the zone", "z." + zone, dns.TypeTXT, []string{"y." + zone + " 60 IN NSEC " + zone + " A", zone + " 60 IN NSEC a." + zone + " SOA"}, "nxdomain"},
		{"NSEC of a delegation above", "x.b." + zone, dns.TypeTXT, []string{"b." + zone + " 60 IN NSEC c." + zone + " NS"}, BadDenial},
		{"NSEC of another name", "b." + zone, dns.TypeTXT, []string{"x." + zone + " 60 IN NSEC y." + zone + " A"}, BadDenial},
		{"compact denial", "b." + zone, dns.TypeTXT, []string{"b." + zone + ` 60 IN NSEC \000.b.` + zone + " RRSIG NSEC TYPE128"}, "nxdomain"},
		{"compact, exists without the type", "b." + zone, dns.TypeTXT, []string{"b." + zone + ` 60 IN NSEC \000.b.` + zone + " RRSIG NSEC"}, "nodata"},
		{"NSEC3, too many iterations", "b." + zone, dns.TypeTXT, []string{strings.Repeat("0", 32) + "." + zone + " 60 IN NSEC3 1 0 2000 AB " + strings.Repeat("V", 32) + " A"}, BadDenial},
		{"NSEC3 without an ancestor", "b." + zone, dns.TypeTXT, []string{strings.Repeat("0", 32) + "." + zone + " 60 IN NSEC3 1 0 0 - " + strings.Repeat("V", 32) + " A"}, BadDenial},
		{"NSEC3, opt-out for DS", "b." + zone, dns.TypeDS, []string{
			dns.HashName(zone, dns.SHA1, 0, "") + "." + zone + " 60 IN NSEC3 1 1 0 - " + strings.Repeat("V", 32) + " NS SOA",
			strings.Repeat("0", 32) + "." + zone + " 60 IN NSEC3 1 1 0 - " + strings.Repeat("V", 32) + " NS"}, "optout"},
		{"NSEC3, opt-out for another type", "b." + zone, dns.TypeTXT, []string{
			dns.HashName(zone, dns.SHA1, 0, "") + "." + zone + " 60 IN NSEC3 1 1 0 - " + strings.Repeat("V", 32) + " NS SOA",
			strings.Repeat("0", 32) + "." + zone + " 60 IN NSEC3 1 1 0 - " + strings.Repeat("V", 32) + " NS"}, BadDenial},
		{"nothing", "b." + zone, dns.TypeTXT, nil, MissingSignature},
	} {
		var ns []dns.RR
		for _, s := range tc.recs {
			r, err := dns.NewRR(s)
			if err != nil {
				t.Fatal(tc.name, err)
			}
			ns = append(ns, fuzzSign(t, ks, priv, r)...)
		}
		c := &checker{now: epoch}
		d, err := c.denied(group(ns), tc.qname, tc.qtype, ks)
		got := "nodata"
		var b *BogusError
		switch {
		case errors.As(err, &b):
			got = b.Kind
		case err != nil:
			got = err.Error()
		case d.nxdomain:
			got = "nxdomain"
		case d.cut:
			got = "cut"
		case d.optOut:
			got = "optout"
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s (%v)", tc.name, got, tc.want, err)
		}
	}
}

func TestCompare(t *testing.T) {
	// The order of RFC 4034, 6.1.
	names := []string{"example.", "a.example.", `yljkjljk.a.example.`, `Z.a.example.`, `zABC.a.EXAMPLE.`, `z.example.`, `\001.z.example.`, `*.z.example.`, `\200.z.example.`}
	for i := range names {
		for j := range names {
			got := compare(dns.CanonicalName(names[i]), dns.CanonicalName(names[j]))
			if i < j && got >= 0 || i > j && got <= 0 || i == j && got != 0 {
				t.Errorf("%s and %s: %d", names[i], names[j], got)
			}
		}
	}
}
