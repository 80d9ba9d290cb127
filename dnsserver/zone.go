package dnsserver

import (
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
)

// A zone is everything that answers are made of but the index: the
// configuration and the keys at one moment. It is never changed.
type zone struct {
	cfg      ZoneConfig
	origin   []byte // wire format
	text     string // presentation format
	v0       []byte // the name under which modules are
	apexTTL  uint32
	ttl      uint32
	negTTL   uint32
	soa      *dns.SOA
	soaTail  int             // offset of the serial in the SOA's data
	soaSet   *rrset          // with serial 0
	static   map[string]node // by name in wire format
	glue     []*rrset        // for NS answers
	agent    []byte          // EDNS option of RFC 9567, or nil
	signer   *signer
	keys     []*Key
	stale    time.Duration
	nextTime time.Time // when a key's state changes
}

// A node is what exists at a name: with no sets, an empty non-terminal.
type node struct {
	sets []*rrset
}

func (n node) find(typ uint16) *rrset {
	for _, s := range n.sets {
		if s.typ == typ {
			return s
		}
	}
	return nil
}

// types returns the bitmap for the node: what exists and the two types that
// every name in a signed zone has. In ascending order.
func (n node) types() []uint16 {
	t := make([]uint16, 0, len(n.sets)+2)
	for _, s := range n.sets {
		t = append(t, s.typ)
	}
	t = append(t, dns.TypeRRSIG, dns.TypeNSEC)
	slices.Sort(t)
	return t
}

func newZone(cfg ZoneConfig, keys []*Key, slots int, now time.Time, made func()) (*zone, error) {
	text, soa, rrs, err := cfg.static()
	if err != nil {
		return nil, err
	}
	origin, err := packName(text)
	if err != nil {
		return nil, err
	}
	z := &zone{
		cfg: cfg, origin: origin, text: text, v0: append([]byte("\x02v0"), origin...), soa: soa,
		apexTTL: seconds(cfg.ApexTTL), ttl: seconds(cfg.TTL), negTTL: seconds(cfg.NegativeTTL),
		static: map[string]node{}, keys: keys, stale: cfg.StaleAfter.D(),
	}
	askParent := canAskParent(keys, now)
	for _, k := range keys {
		if at := k.Timing.Next(now); !at.IsZero() && (z.nextTime.IsZero() || at.Before(z.nextTime)) {
			z.nextTime = at
		}
		rrs = append(rrs, z.keyRecords(k, now, askParent)...)
	}
	z.signer = newSigner(origin, keys, cfg.Validity.D(), slots, now, made)
	if len(z.signer.zoneKeys) == 0 {
		return nil, fmt.Errorf("%w for %s is active now", ErrNoKeys, text)
	}
	if z.soaSet, err = newRRset([]dns.RR{soa}); err != nil {
		return nil, err
	}
	z.soaTail = len(z.soaSet.data[0]) - 20
	if err := z.addStatic(rrs); err != nil {
		return nil, err
	}
	for _, ns := range cfg.NameServers {
		host, _ := absolute(ns.Name, text)
		wire, err := packName(host)
		if err != nil {
			return nil, err
		}
		z.glue = append(z.glue, z.static[string(wire)].sets...)
	}
	z.glue = slices.DeleteFunc(z.glue, func(s *rrset) bool { return s.typ != dns.TypeA && s.typ != dns.TypeAAAA })
	if cfg.ReportAgent != "" {
		if z.agent, err = packName(cfg.ReportAgent); err != nil {
			return nil, err
		}
	}
	return z, nil
}

// canAskParent reports whether all keys that the parent zone should name are known.
// CDS records ask for all of its DS records (RFC 7344, section 4): with those of
// our own keys alone a second operator would lose theirs.
func canAskParent(keys []*Key, now time.Time) bool {
	foreign, named := false, false
	for _, k := range keys {
		if k.signer == nil && k.published(now) {
			foreign, named = true, named || k.SEP()
		}
	}
	return named || !foreign
}

// keyRecords returns what the apex says of a key.
func (z *zone) keyRecords(k *Key, now time.Time, askParent bool) (rrs []dns.RR) {
	if !k.published(now) {
		return nil
	}
	pub := dns.Copy(k.Public).(*dns.DNSKEY)
	pub.Hdr.Ttl = z.apexTTL
	rrs = append(rrs, pub)
	if askParent && k.SEP() && k.synced(now) {
		ds := pub.ToDS(dns.SHA256)
		ds.Hdr.Rrtype = dns.TypeCDS
		cdnskey := *pub
		cdnskey.Hdr.Rrtype = dns.TypeCDNSKEY
		rrs = append(rrs, &dns.CDS{DS: *ds}, &dns.CDNSKEY{DNSKEY: cdnskey})
	}
	return rrs
}

// addStatic sorts records into sets and makes every name above them exist.
func (z *zone) addStatic(rrs []dns.RR) error {
	type id struct {
		name string
		typ  uint16
	}
	groups := map[id][]dns.RR{}
	var order []id
	for _, rr := range rrs {
		i := id{lowerText(rr.Header().Name), rr.Header().Rrtype}
		if groups[i] == nil {
			order = append(order, i)
		}
		groups[i] = append(groups[i], rr)
	}
	z.static[string(z.v0)] = node{}
	for _, i := range order {
		set, err := newRRset(groups[i])
		if err != nil {
			return err
		}
		if at := suffixAt(set.owner, z.origin); at < 0 {
			continue // the address of a name server elsewhere
		}
		n := z.static[string(set.owner)]
		n.sets = append(n.sets, set)
		z.static[string(set.owner)] = n
		for p := parentOf(set.owner); len(set.owner) > len(z.origin) && len(p) >= len(z.origin); p = parentOf(p) {
			if _, ok := z.static[string(p)]; !ok {
				z.static[string(p)] = node{}
			}
		}
	}
	return nil
}

// soaAt returns the SOA set for a size of the log.
func (z *zone) soaAt(size int64, ttl uint32) *rrset {
	data := slices.Clone(z.soaSet.data[0])
	serial := uint32(size)
	data[z.soaTail], data[z.soaTail+1], data[z.soaTail+2], data[z.soaTail+3] = byte(serial>>24), byte(serial>>16), byte(serial>>8), byte(serial)
	return &rrset{z.soaSet.owner, dns.TypeSOA, ttl, [][]byte{data}}
}

// underV0 reports whether a name of the zone is v0 or below it.
func (z *zone) underV0(qname []byte) bool { return suffixAt(qname, z.v0) >= 0 }

// ownNode is what the zone has at a name beside the index.
func (z *zone) ownNode(size int64, owner []byte) node {
	n := z.static[string(owner)]
	if len(owner) == len(z.origin) {
		n.sets = append([]*rrset{z.soaAt(size, z.apexTTL)}, n.sets...)
	}
	return n
}

// lookup finds what exists at a name of the zone.
func (z *zone) lookup(idx index.Reader, head index.Head, qname []byte) (n node, exists bool, err error) {
	if _, ok := z.static[string(qname)]; ok {
		return z.ownNode(head.Size, qname), true, nil
	}
	if !z.underV0(qname) {
		return node{}, false, nil
	}
	kind, path, err := name.ParseWire(nil, qname[:len(qname)-len(z.v0)])
	if err != nil {
		return node{}, false, nil // spelled as no module is
	}
	owner := slices.Clone(qname)
	switch kind {
	case name.KindStatus:
		st := name.StatusText{Size: head.Size, Hash: head.Hash, At: head.Accepted}
		return node{[]*rrset{txtSet(owner, z.ttl, st.Format())}}, true, nil
	case name.KindToolchain:
		list, err := idx.Toolchains()
		if err != nil {
			return node{}, false, err
		}
		entries := make([]name.Entry, 0, len(list))
		for _, t := range list {
			entries = append(entries, name.Entry{Version: t.Version, Kind: t.Kind, Time: time.Unix(t.Time, 0)})
		}
		return z.textNode(owner, entries), true, nil
	}
	mod, exists, err := lookupIndex(idx, kind, string(path))
	if err != nil || mod.Majors == nil {
		return node{}, exists, err
	}
	entries := make([]name.Entry, 0, len(mod.Majors))
	for _, v := range mod.Majors {
		entries = append(entries, name.Entry{Version: v.Version, Time: time.Unix(v.Time, 0)})
	}
	return z.textNode(owner, entries), true, nil
}

// lookupIndex finds the module of a path, and says whether there is one, or one
// whose path begins like this.
func lookupIndex(idx index.Reader, kind name.Kind, path string) (m index.Module, exists bool, err error) {
	if kind != name.KindSeparator {
		if m, exists, err = idx.Module(path); err != nil || exists {
			return m, exists, err
		}
	}
	if kind == name.KindHost {
		exists, err = idx.HostSuffix(path)
	} else {
		exists, err = idx.IsPrefix(path)
	}
	return index.Module{}, exists, err
}

// exists reports whether there is anything at a name of the zone or below it.
// The room is for the path that it stands for.
func (z *zone) exists(idx index.Reader, qname []byte, room *[]byte) (bool, error) {
	if _, ok := z.static[string(qname)]; ok {
		return true, nil
	}
	if !z.underV0(qname) {
		return false, nil
	}
	kind, path, err := name.ParseWire((*room)[:0], qname[:len(qname)-len(z.v0)])
	if err != nil {
		return false, nil // spelled as no module is
	}
	*room = path
	if kind == name.KindStatus || kind == name.KindToolchain {
		return true, nil
	}
	_, exists, err := lookupIndex(idx, kind, string(path))
	return exists, err
}

// textNode is a name with a TXT record, or without data when no entry fits.
func (z *zone) textNode(owner []byte, entries []name.Entry) node {
	text := name.FormatTXT(entries)
	if text == "" {
		return node{}
	}
	return node{[]*rrset{txtSet(owner, z.ttl, text)}}
}
