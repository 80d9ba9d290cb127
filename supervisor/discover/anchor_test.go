package discover

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rootXML has the form of the root zone's anchors as they are published
// (RFC 7958), with the key of 2010, which is over, and that of 2024.
const rootXML = `<?xml version="1.0" encoding="UTF-8"?>
<TrustAnchor id="x" source="http://data.iana.org/root-anchors/root-anchors.xml">
<Zone>.</Zone>
<KeyDigest id="Kjqmt7v" validFrom="2010-07-15T00:00:00+00:00" validUntil="2019-01-11T00:00:00+00:00">
<KeyTag>19036</KeyTag><Algorithm>8</Algorithm><DigestType>2</DigestType>
<Digest>49AAC11D7B6F6446702E54A1607371607A1A41855200FD2CE1CDDE32F24E8FB5</Digest>
</KeyDigest>
<KeyDigest id="Klajeyz" validFrom="2017-02-02T00:00:00+00:00">
<KeyTag>20326</KeyTag><Algorithm>8</Algorithm><DigestType>2</DigestType>
<Digest>E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D</Digest>
</KeyDigest>
<KeyDigest id="Kmyv6jo" validFrom="2024-07-18T00:00:00+00:00">
<KeyTag>38696</KeyTag><Algorithm>8</Algorithm><DigestType>2</DigestType>
<Digest>683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16</Digest>
</KeyDigest>
</TrustAnchor>`

func TestBuiltinAnchors(t *testing.T) {
	a := BuiltinAnchors()
	if a.Zone != "." || len(a.DS) != 2 || a.DS[0].KeyTag != 20326 || a.DS[1].KeyTag != 38696 {
		t.Errorf("%+v", a)
	}
	// The published file gives the same keys.
	x, err := ParseAnchors([]byte(rootXML), epoch)
	if err != nil || len(x.DS) != 2 {
		t.Fatalf("%+v, %v", x, err)
	}
	for i := range a.DS {
		if a.DS[i].KeyTag != x.DS[i].KeyTag || a.DS[i].Digest != x.DS[i].Digest {
			t.Errorf("built in %v, published %v", a.DS[i], x.DS[i])
		}
	}
	if x, err := ParseAnchors([]byte(rootXML), time.Date(2018, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil || len(x.DS) != 2 || x.DS[0].KeyTag != 19036 {
		t.Errorf("in 2018: %+v, %v", x, err)
	}
}

func TestParseAnchorsBad(t *testing.T) {
	ds := strings.Split(strings.TrimSpace(rootAnchors), "\n")[0]
	for _, tc := range []struct{ text, says string }{
		{"", "no DS and no DNSKEY"},
		{"; a comment\n", "no DS and no DNSKEY"},
		{". IN A 192.0.2.1", "A record of ."},
		{"nonsense", ""},
		{ds + "\n" + strings.Replace(ds, ".", "test.", 1), "two zones"},
		{strings.Replace(ds, "8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D", "8 1 E06D44B80B8F1D39A95C0B0D7C65D08458E88040", 1), "none of its keys"},
		{strings.Replace(ds, " 8 2 ", " 5 2 ", 1), "none of its keys"},
		{"test. IN DNSKEY 0 3 13 " + fuzzPublicKey, "not a zone key"},
		{"trust-anchors { test. static-ds 1 13 2 \"zz\"; };", "digest"},
		{"trust-anchors { test. static-ds 1 13 2; };", "fields"},
		{"trust-anchors { test. static-ds 99999 13 2 \"00\"; };", "not a number in range"},
		{"trust-anchors { test. static-ds 1 13 2 \"00\";", "not closed"},
		{"options { x; };", "is not trust-anchors"},
		{"trust-anchors { \"test. static-ds", "not closed"},
		{"<TrustAnchor><Zone>.</Zone></TrustAnchor>", "no DS and no DNSKEY"},
		{"<html>", ""},
		{"<TrustAnchor><KeyDigest/></TrustAnchor>", "names no zone"},
		{strings.Replace(rootXML, "2017-02-02T00:00:00+00:00", "yesterday", 1), "validFrom"},
		{strings.Replace(rootXML, "20326", "65536", 1), "not a number in range"},
		{strings.Replace(rootXML, "</TrustAnchor>", "", 1), "EOF"},
		{strings.Replace(rootXML, "</TrustAnchor>", "</TrustAnchor><TrustAnchor/>", 1), "not TrustAnchor"},
		{strings.Replace(rootXML, "<Zone>.</Zone>", "<Zone>.</Zone><Zone>test.</Zone>", 1), "two zones"},
		{strings.Replace(rootXML, "<KeyTag>20326</KeyTag>", "<KeyTag>2</KeyTag><KeyTag>0326</KeyTag>", 1), "two elements KeyTag"},
		{"<X><TrustAnchor/></X>", "not TrustAnchor"},
		{"<TrustAnchor><Zone>.</Zone>" + strings.Repeat(`<KeyDigest validFrom="2017-02-02T00:00:00Z"/>`, 100) + "</TrustAnchor>", "more than 64"},
		{strings.TrimPrefix(ds, "."), "not an absolute domain name"},
		{strings.Replace(ds, ".", "test", 1), "not an absolute domain name"},
		{strings.Replace(ds, ".", "@", 1), "not an absolute domain name"},
		{"$ORIGIN test.\n" + ds, "not an absolute domain name"},
		{"$INCLUDE /etc/passwd\n" + ds, "not an absolute domain name"},
		{strings.Replace(ds, "IN", "CH", 1), "CH record of ."},
		{strings.Replace(ds, "IN", "IN IN", 1), "IN record of ."},
		{strings.Replace(ds, "IN", "1 2 IN", 1), "2 record of ."},
		{". IN", "no record behind the name"},
		{". DS 20326 8", "2 fields instead of 4"},
		{strings.Replace(ds, "20326", "x", 1), "not a number in range"},
		{strings.Replace(ds, "20326", `"20326"`, 1), "quotation mark"},
		{strings.Replace(ds, "20326", "( 20326", 1), "not closed"},
		{strings.Replace(ds, "20326", "20326 )", 1), "where none can"},
		{"(" + ds + ")", "where none can"},
		{strings.Replace(ds, " 2 ", "\r2 ", 1), "control character"},
	} {
		if a, err := ParseAnchors([]byte(tc.text), epoch); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%q: %+v, %v; want %q", tc.text, a, err, tc.says)
		}
	}
}

// The forms in which a zone file may have the records.
func TestParseAnchorsZone(t *testing.T) {
	const digest = "E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"
	for name, text := range map[string]string{
		"plain":             "test. IN DS 20326 8 2 " + digest,
		"no class":          "test. DS 20326 8 2 " + digest,
		"time to live":      "test. 3600 IN DS 20326 8 2 " + digest,
		"the other way":     "test. IN 3600 DS 20326 8 2 " + digest,
		"small letters":     "TEST. in ds 20326 8 2 " + strings.ToLower(digest),
		"tabs, CRLF":        "test.\tIN\tDS\t20326 8 2 " + digest + "\r\n",
		"several lines":     "test. IN DS ( 20326 8 2\n\t" + digest[:30] + " ; one\n" + digest[30:] + "\n)\n",
		"parenthesis alone": "test. IN DS 20326 8 2 (" + digest + ")",
		"comments":          "; test. IN A 192.0.2.1\n\n  \n ; x\ntest. IN DS 20326 8 2 " + digest + ";;state=2 [  VALID  ]\n",
		"directive":         "$TTL 1h\ntest. IN DS 20326 8 2 " + digest,
		"name above":        "test. IN DS 20326 8 2 " + digest + "\n  IN DS 20326 8 2 " + digest,
	} {
		a, err := ParseAnchors([]byte(text), epoch)
		if err != nil || a.Zone != "test." || a.DS[0].KeyTag != 20326 || a.DS[0].Digest != strings.ToLower(digest) || a.DS[len(a.DS)-1].KeyTag != 20326 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func TestNewBad(t *testing.T) {
	anchor := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(anchor, []byte("test. IN DNSKEY 257 3 13 "+fuzzPublicKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.Zone = "" }, "zone is \"\""},
		{func(c *Config) { c.Zone = "a..b" }, "zone is \"a..b\""},
		{func(c *Config) { c.Zone = "http://l.example.org" }, "zone is \"http"},
		{func(c *Config) { c.Anchor = "/nowhere" }, "reading the trust anchor"},
		{func(c *Config) { c.Anchor, c.Zone = anchor, "l.example." }, "is for test., which is not at or above"},
		{func(c *Config) { c.Sources = []string{"server://192.0.2.1"} }, "pin the zone's key"},
		{func(c *Config) { c.Sources = []string{"system", "system"} }, "named twice"},
		{func(c *Config) { c.Sources = []string{"x"} }, "is neither"},
		{func(c *Config) { c.Agree = 2 }, "only 1 sources"},
		{func(c *Config) { c.Agree, c.Sources = 2, []string{"udp://192.0.2.1", "tls://192.0.2.1"} }, "only 1 sources on different paths"},
		{func(c *Config) { c.Agree = -1 }, "agree is -1"},
		{func(c *Config) { c.Trust = "yes" }, "trust is \"yes\""},
		{func(c *Config) { c.Trust, c.Sources = "resolver", []string{"udp://192.0.2.1"} }, "only a resolver on loopback"},
		{func(c *Config) { c.Trust, c.Sources = "resolver", []string{"tls://127.0.0.1"} }, "only a resolver on loopback"},
		{func(c *Config) { c.Fallback = true }, "fallback needs"},
		{func(c *Config) { c.CA, c.Sources = anchor, []string{"tls://192.0.2.1"} }, "no PEM certificate"},
	} {
		cfg := DefaultConfig()
		cfg.Zone = testZone
		tc.change(&cfg)
		if _, err := New(cfg, Options{}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v; want %q", err, tc.says)
		}
	}
}
