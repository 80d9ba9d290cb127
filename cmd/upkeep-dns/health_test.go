package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
)

type headOnly struct{ index.Reader }

func (headOnly) Head() (index.Head, error) { return index.Head{Size: 5_000_000}, nil }

func TestHealth(t *testing.T) {
	started := make(chan struct{})
	srv := &dns.Server{Addr: "127.0.0.1:0", Net: "udp", NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
				Txt: []string{name.StatusText{Size: 4_000_000, At: time.Now()}.Format()}})
			_ = w.WriteMsg(m) // a test's asker is there
		})}
	go func() { _ = srv.ListenAndServe() }()
	defer func() { _ = srv.Shutdown() }()
	<-started
	local := netip.MustParseAddrPort(srv.PacketConn.LocalAddr().String())

	now := time.Now()
	old := dnsserver.Timing{Inactive: now.Add(-time.Hour)}
	next := dnsserver.Timing{Activate: now.Add(time.Hour)}
	var keys []*dnsserver.Key
	for _, timing := range []dnsserver.Timing{old, next} {
		k, err := dnsserver.GenerateKey(t.TempDir(), "l.upkeep.test.", "ECDSAP256SHA256", true, timing)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	zone := dnsserver.DefaultZoneConfig()
	zone.Zone = "l.upkeep.test."
	zone.NameServers = []dnsserver.NameServer{{Name: "ns0", Addresses: []netip.Addr{local.Addr()}}, {Name: "ns.example.org."}}
	reads := 0
	h := &health{zone: zone, index: headOnly{}, port: local.Port(), log: slog.New(slog.DiscardHandler),
		keys: func() ([]*dnsserver.Key, error) { reads++; return keys, nil }}
	var all []string
	for _, f := range h.Facts(t.Context()) {
		line := f.Name + ": " + f.Value
		if f.Bad {
			line += " (bad)"
		}
		all = append(all, strings.ReplaceAll(line, "\u202f", ""))
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{"ECDSAP256SHA256, retired", "signs from ", "Keys: none signs now (bad)", "Signatures: valid for ",
		"Server ns0: 4000000 records, 1000000 less than this one (bad)", "Server ns.example.org: not asked"} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	h.Facts(t.Context())
	if reads != 1 {
		t.Errorf("the keys were read %d times within a minute", reads)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := askSize(stopped, local, zone.Zone); err == nil {
		t.Error("an answer without asking")
	}
	for _, tt := range []struct {
		size int64
		err  error
		bad  bool
	}{{5, nil, false}, {6, nil, false}, {4, nil, false}, {5 + 2*tolerance, nil, true}, {0, errors.New("timeout"), true}} {
		if _, bad := serverVerdict(tt.size, 5, tt.err); bad != tt.bad {
			t.Errorf("%+v: bad is %v", tt, bad)
		}
	}
}
