package dnsserver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/config"
)

// ZoneConfig says what the zone is, beside what the index puts into it.
type ZoneConfig struct {
	Zone        string          `toml:"name" comment:"The zone to serve, for example l.example.org."`
	NameServers []NameServer    `toml:"nameserver" comment:"The zone's name servers, the first one is named in the SOA record.\nA name without a trailing dot is in the zone and needs addresses (the parent's glue)."`
	Mailbox     string          `toml:"mailbox" comment:"Who is responsible, as a mail address; empty is hostmaster in the zone."`
	Records     []string        `toml:"records" comment:"More records in the form of a zone file, for example \"@ CAA 0 issue \\\"ca.example.net\\\"\".\nNames without a trailing dot are in the zone."`
	TTL         config.Duration `toml:"ttl" comment:"How long resolvers keep versions: the time until a new one is seen everywhere."`
	NegativeTTL config.Duration `toml:"negative_ttl" comment:"How long resolvers keep that something does not exist."`
	ApexTTL     config.Duration `toml:"apex_ttl" comment:"How long resolvers keep the zone's name servers, keys and own records."`
	StaleAfter  config.Duration `toml:"stale_after" comment:"When the log was last read longer ago than this, names of modules are answered SERVFAIL,\nso that resolvers ask another server. 0 is never. It must be well above log.interval."`
	Validity    config.Duration `toml:"signature_validity" comment:"How long signatures are valid; they are renewed at half of it. At least one hour."`
	Denial      string          `toml:"denial" comment:"How it is said that something does not exist. \"compact\" signs a record for each name that is asked for (RFC 9824);\n\"nsec\" keeps all names of the index in memory, in order, and signs what is between two of them:\na flood of names that don't exist is then as cheap as names that do."`
	NSID        string          `toml:"nsid" comment:"The name of this server for operators who ask which one answers (NSID); empty is none."`
	Encrypted   Encrypted       `toml:"-"`
	ReportAgent string          `toml:"report_agent" comment:"Domain to which resolvers report errors they met in the zone (RFC 9567); empty is none."`
}

// Ways to say that something does not exist.
const (
	DenialCompact = "compact"
	DenialNSEC    = "nsec"
)

// Encrypted says which encrypted transports the name servers in the zone have,
// so that resolvers can find them (RFC 9461). A port of 0 is none.
type Encrypted struct {
	DoT, DoH, DoQ uint16
}

// bindings returns the SVCB records of a name server.
func (e Encrypted) bindings(host string, ttl uint32) (rrs []dns.RR) {
	add := func(port, usual uint16, params ...dns.SVCBKeyValue) {
		if port == 0 {
			return
		}
		if port != usual {
			params = append(params, &dns.SVCBPort{Port: port})
		}
		rrs = append(rrs, &dns.SVCB{Hdr: dns.RR_Header{Name: "_dns." + host, Rrtype: dns.TypeSVCB, Class: dns.ClassINET, Ttl: ttl},
			Priority: uint16(len(rrs) + 1), Target: host, Value: params})
	}
	add(e.DoT, 853, &dns.SVCBAlpn{Alpn: []string{"dot"}})
	add(e.DoQ, 853, &dns.SVCBAlpn{Alpn: []string{"doq"}})
	add(e.DoH, 443, &dns.SVCBAlpn{Alpn: []string{"h2"}}, &dns.SVCBDoHPath{Template: DoHPath + "{?dns}"})
	return rrs
}

// A NameServer is a name server of the zone.
type NameServer struct {
	Name      string       `toml:"name" comment:"Host name, for example ns0."`
	Addresses []netip.Addr `toml:"addresses" comment:"Its addresses, when it is in the zone."`
}

// Check reports what is wrong with the configuration, if anything.
func (c ZoneConfig) Check() error {
	_, _, _, err := c.static()
	return err
}

// DefaultZoneConfig has the values that a configuration need not give.
func DefaultZoneConfig() ZoneConfig {
	return ZoneConfig{
		TTL:         config.Duration(time.Minute),
		NegativeTTL: config.Duration(time.Minute),
		ApexTTL:     config.Duration(5 * time.Minute),
		StaleAfter:  config.Duration(6 * time.Hour),
		Validity:    config.Duration(DefaultValidity),
		Denial:      DenialCompact,
	}
}

// Timers of the SOA record, for the eyes of checkers: there are no zone
// transfers.
const (
	soaRefresh = 4 * 3600
	soaRetry   = 3600
	soaExpire  = 14 * 24 * 3600
)

// static returns the records of the configuration and the SOA record, whose
// serial is set for each answer.
func (c *ZoneConfig) static() (zone string, soa *dns.SOA, rrs []dns.RR, err error) {
	fail := func(format string, args ...any) (string, *dns.SOA, []dns.RR, error) {
		return "", nil, nil, fmt.Errorf(format, args...)
	}
	if c.Zone == "" {
		return fail("zone.name: is not set; give the name of the zone to serve")
	}
	if zone, err = checkZone(c.Zone); err != nil {
		return fail("zone.name: %w", err)
	}
	for _, d := range []struct {
		key string
		d   config.Duration
		max time.Duration
	}{{"ttl", c.TTL, 24 * time.Hour}, {"negative_ttl", c.NegativeTTL, 3 * time.Hour}, {"apex_ttl", c.ApexTTL, 7 * 24 * time.Hour}} {
		if d.d.D() > d.max || d.d.D()%time.Second != 0 {
			return fail("zone.%s: %s is not a whole number of seconds up to %s", d.key, d.d, d.max)
		}
	}
	if v := c.Validity.D(); v < time.Hour || v > 90*24*time.Hour || v < 2*c.ApexTTL.D() {
		return fail("zone.signature_validity: %s is not between one hour (and twice apex_ttl) and 90 days", c.Validity)
	}
	if c.Denial != "" && c.Denial != DenialCompact && c.Denial != DenialNSEC {
		return fail("zone.denial: %q is neither %q nor %q", c.Denial, DenialCompact, DenialNSEC)
	}
	if len(c.NSID) > 128 {
		return fail("zone.nsid: has more than 128 bytes")
	}
	if c.ReportAgent != "" {
		if _, err := packName(c.ReportAgent); err != nil {
			return fail("zone.report_agent: %w", err)
		}
	}
	apexTTL := seconds(c.ApexTTL)
	hdr := func(name string, typ uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: apexTTL}
	}
	if len(c.NameServers) == 0 {
		return fail("zone.nameserver: at least one is needed")
	}
	listed := map[string]bool{}
	for i, ns := range c.NameServers {
		host, inZone := absolute(ns.Name, zone)
		if !isHost(host) || ns.Name == "" || ns.Name == "@" {
			return fail("zone.nameserver %d: %q is no name of a host", i+1, ns.Name)
		}
		if listed[host] {
			return fail("zone.nameserver %d: %s is listed twice; give it all its addresses in one place", i+1, ns.Name)
		}
		listed[host] = true
		if dns.IsSubDomain("v0."+zone, host) {
			return fail("zone.nameserver %s: is under v0.%s, where the index alone says what there is", ns.Name, zone)
		}
		if inZone && len(ns.Addresses) == 0 {
			return fail("zone.nameserver %s: is in the zone and needs addresses", ns.Name)
		}
		if !inZone && len(ns.Addresses) > 0 {
			return fail("zone.nameserver %s: is not in the zone %s, so its addresses belong elsewhere", ns.Name, zone)
		}
		rrs = append(rrs, &dns.NS{Hdr: hdr(zone, dns.TypeNS), Ns: host})
		if inZone {
			rrs = append(rrs, c.Encrypted.bindings(host, apexTTL)...)
		}
		for _, a := range ns.Addresses {
			if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
				return fail("zone.nameserver %s: %s is no address that others can ask", ns.Name, a)
			}
			if a = a.Unmap(); a.Is4() {
				rrs = append(rrs, &dns.A{Hdr: hdr(host, dns.TypeA), A: a.AsSlice()})
			} else {
				rrs = append(rrs, &dns.AAAA{Hdr: hdr(host, dns.TypeAAAA), AAAA: a.AsSlice()})
			}
		}
	}
	mbox, err := mailboxName(c.Mailbox, zone)
	if err != nil {
		return fail("zone.mailbox: %w", err)
	}
	first, _ := absolute(c.NameServers[0].Name, zone)
	soa = &dns.SOA{Hdr: hdr(zone, dns.TypeSOA), Ns: first, Mbox: mbox, Refresh: soaRefresh, Retry: soaRetry,
		Expire: soaExpire, Minttl: seconds(c.NegativeTTL)}
	for i, text := range c.Records {
		rr, err := parseRecord(text, zone, apexTTL)
		if err != nil {
			return fail("zone.records, number %d: %w", i+1, err)
		}
		rrs = append(rrs, rr)
	}
	return zone, soa, rrs, nil
}

// isHost reports whether a full name can be that of a host.
func isHost(host string) bool {
	wire, err := packName(host)
	if err != nil {
		return false
	}
	_, plain := labelsOf(wire, len(wire)-1)
	return plain
}

func seconds(d config.Duration) uint32 { return uint32(d.D() / time.Second) }

// absolute returns the full name of a host, and whether it is in the zone.
func absolute(name, zone string) (string, bool) {
	if name == "@" {
		return zone, true
	}
	if !strings.HasSuffix(name, ".") {
		name += "." + zone
	}
	name = strings.ToLower(name)
	return name, dns.IsSubDomain(zone, name)
}

// mailboxName writes a mail address as a domain name (RFC 1035, section 8).
func mailboxName(addr, zone string) (string, error) {
	if addr == "" {
		return "hostmaster." + zone, nil
	}
	local, domain, ok := strings.Cut(addr, "@")
	if !ok || local == "" || domain == "" {
		return "", fmt.Errorf("%q is no mail address", addr)
	}
	name := strings.ReplaceAll(local, ".", `\.`) + "." + dns.Fqdn(strings.ToLower(domain))
	if _, err := packName(name); err != nil {
		return "", fmt.Errorf("%q can't be written as a name: %w", addr, err)
	}
	return name, nil
}

// Types that a static record may not have: what the server makes itself, and
// what would need answers that it does not give.
var ownTypes = []uint16{
	dns.TypeSOA, dns.TypeNS, dns.TypeCNAME, dns.TypeDNAME, dns.TypeDS, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY,
	dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeKEY, dns.TypeSIG, dns.TypeNXT, dns.TypeOPT,
	dns.TypeTSIG, dns.TypeTKEY, dns.TypeANY, dns.TypeNXNAME,
}

func parseRecord(text, zone string, ttl uint32) (dns.RR, error) {
	zp := dns.NewZoneParser(strings.NewReader(text+"\n"), zone, "")
	zp.SetDefaultTTL(ttl)
	rr, ok := zp.Next()
	if err := zp.Err(); err != nil || !ok || rr == nil {
		return nil, fmt.Errorf("%q is not a record: %w", text, errOr(err, "it is empty"))
	}
	if _, more := zp.Next(); more {
		return nil, fmt.Errorf("%q is more than one record", text)
	}
	h := rr.Header()
	h.Name = strings.ToLower(h.Name)
	data, err := packData(rr)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	owner, err := packName(h.Name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	switch {
	case len(data) == 0:
		return nil, fmt.Errorf("%q has no data", text)
	case h.Class != dns.ClassINET:
		return nil, fmt.Errorf("%q is not of class IN", text)
	case !dns.IsSubDomain(zone, h.Name):
		return nil, fmt.Errorf("%q is outside the zone %s", text, zone)
	case dns.IsSubDomain("v0."+zone, h.Name):
		return nil, fmt.Errorf("%q is under v0.%s, where the index alone says what there is", text, zone)
	case slices.Contains(dns.SplitDomainName(showName(owner)), "*"):
		return nil, fmt.Errorf("%q is a wildcard, which this server does not serve", text)
	case slices.Contains(ownTypes, h.Rrtype):
		return nil, fmt.Errorf("%q has the type %s, which can't be set here", text, dns.TypeToString[h.Rrtype])
	}
	return rr, nil
}
