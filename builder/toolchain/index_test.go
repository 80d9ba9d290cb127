package toolchain

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/goproxy"
)

func TestParseLine(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Line
		ok   bool
	}{
		{"v=go1.27.4 k=cur t=66fa7e15; v=go1.26.11 k=prev t=66fa7e15; v=go1.28rc1 k=next t=66fa7e15", Line{"go1.27.4", "go1.26.11", "go1.28rc1"}, true},
		{"v=go1.27.4 k=cur", Line{Current: "go1.27.4"}, true},
		{"v=go1.27.4 k=cur; v=go1.25.3 k=old; v=go1.26.1 k=prev", Line{Current: "go1.27.4", Previous: "go1.26.1"}, true},
		{"v=go1.26.1 k=prev", Line{}, false},
		{"v=go1.28rc1 k=cur", Line{}, false},
		{"v=go1.27.4 k=cur; v=go1.27.3 k=cur", Line{}, false},
		{"v=go1.27.4 k=cur; v=go1.27.3 k=prev", Line{}, false},
		{"v=go1.27.4 k=cur; v=go1.27rc2 k=next", Line{}, false},
		{"v=go1.27 k=cur", Line{}, false},
		{"v=go1.20.1 k=cur", Line{}, false},
		{"v=v1.0.0 k=cur", Line{}, false},
		{"k=cur", Line{}, false},
		{"", Line{}, false},
	} {
		got, err := parseLine(tc.text)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: %+v, %v", tc.text, got, err)
		}
	}
}

// The index decides which versions are current; the proxy's list does when the
// index is silent or talks nonsense, unless it has said something before.
func TestIndex(t *testing.T) {
	var text atomic.Value
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if txt, _ := text.Load().(string); txt != "" && q.Question[0].Name == "toolchain.v0.l.upkeep.test." {
			m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{txt}}}
		} else {
			m.Rcode = dns.RcodeServerFailure
		}
		w.WriteMsg(m)
	})}
	go srv.ActivateAndServe()
	defer srv.Shutdown()
	host := runtime.GOOS + "-" + runtime.GOARCH
	list := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("v0.0.1-go1.25.1." + host + "\n"))
	}))
	defer list.Close()
	proxy, err := goproxy.New(list.URL, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *Store {
		s, err := Open(t.TempDir(), &source.Source{Proxy: proxy, DB: fixed{}}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s.SetIndex(Index{Zone: "l.upkeep.test", Server: pc.LocalAddr().String()})
		return s
	}
	for _, silent := range []string{"", "v=go1.99 k=cur"} {
		text.Store(silent)
		if l, err := open().Line(t.Context()); err != nil || l.Current != "go1.25.1" {
			t.Errorf("index says %q: %+v, %v", silent, l, err)
		}
	}
	text.Store("v=go1.27.4 k=cur; v=go1.26.11 k=prev")
	s := open()
	for _, said := range []string{"v=go1.27.4 k=cur; v=go1.26.11 k=prev", ""} {
		text.Store(said)
		s.lineUntil = s.lineUntil.Add(-listFor) // as if that time was over
		if l, err := s.Line(t.Context()); err != nil || l.Current != "go1.27.4" || l.Previous != "go1.26.11" {
			t.Errorf("%+v, %v", l, err)
		}
	}
}
