package doq

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/internal/memindex"
)

const zone = "l.upkeep.test."

// patient is the client's configuration: a busy machine takes its time.
var patient = &quic.Config{HandshakeIdleTimeout: time.Minute, MaxIdleTimeout: 2 * time.Minute}

func start(t *testing.T) (addr string, conf *tls.Config, srv *dnsserver.Server) {
	t.Helper()
	dir := t.TempDir()
	if _, err := dnsserver.GenerateKey(dir, zone, "ecdsap256sha256", true, dnsserver.Timing{}); err != nil {
		t.Fatal(err)
	}
	keys, err := dnsserver.LoadKeys(dir, zone)
	if err != nil {
		t.Fatal(err)
	}
	idx := memindex.New()
	idx.Set(memindex.Head(1), memindex.Release("example.org/hello", "v1.0.0", 1))
	cfg := dnsserver.DefaultZoneConfig()
	cfg.Zone = zone
	cfg.NameServers = []dnsserver.NameServer{{Name: "ns0", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	h, err := dnsserver.NewHandler(cfg, keys, idx, dnsserver.Options{Limits: dnsserver.Limits{Answers: 64}})
	if err != nil {
		t.Fatal(err)
	}
	srv = dnsserver.NewServer(h, dnsserver.ListenConfig{ConnsPerIP: 2})
	web := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(web.Close)
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, srv, conn, &tls.Config{Certificates: web.TLS.Certificates}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		conn.Close()
		srv.Close()
	})
	return conn.LocalAddr().String(), &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"doq"}}, srv
}

// ask sends bytes on a stream of its own, and returns what comes back.
func ask(t *testing.T, c *quic.Conn, b []byte) ([]byte, error) {
	t.Helper()
	s, err := c.OpenStreamSync(t.Context())
	if err != nil {
		return nil, err
	}
	s.SetDeadline(time.Now().Add(time.Minute))
	if _, err := s.Write(b); err != nil {
		return nil, err
	}
	s.Close()
	return io.ReadAll(s)
}

func framed(m *dns.Msg) []byte {
	packet, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

func query() *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion("hello._.example.org.v0."+zone, dns.TypeTXT)
	m.SetEdns0(1232, true)
	m.Id = 0
	return m
}

func TestDoQ(t *testing.T) {
	addr, conf, _ := start(t)
	c, err := quic.DialAddr(t.Context(), addr, conf, patient)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(0, "")
	for range 3 {
		b, err := ask(t, c, framed(query()))
		var r dns.Msg
		if err != nil || len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(b)-2 || r.Unpack(b[2:]) != nil || len(r.Answer) != 2 || r.Id != 0 {
			t.Fatalf("%x, %v, %v", b, err, &r)
		}
	}
}

// With too many queries under way one is refused; the connection goes on.
func TestTooMany(t *testing.T) {
	addr, conf, srv := start(t)
	c, err := quic.DialAddr(t.Context(), addr, conf, patient)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(0, "")
	var leave func()
	for range 2 {
		var ok bool
		if leave, ok = srv.EnterStream(dnsserver.Client{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Transport: dnsserver.QUIC}); !ok {
			t.Fatal("the limit came early")
		}
	}
	var reset *quic.StreamError
	if b, err := ask(t, c, framed(query())); !errors.As(err, &reset) || reset.ErrorCode != excessiveLoad {
		t.Errorf("%x, %v; want a refusal", b, err)
	}
	leave()
	if b, err := ask(t, c, framed(query())); err != nil || len(b) < 2 {
		t.Errorf("%x, %v", b, err)
	}
}

// Each of these ends the connection with the error that RFC 9250 wants.
func TestProtocolErrors(t *testing.T) {
	addr, conf, _ := start(t)
	withID := query()
	withID.Id = 7
	keepalive := query()
	keepalive.IsEdns0().Option = append(keepalive.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0TCPKEEPALIVE})
	answer := query()
	answer.Response = true
	for name, b := range map[string][]byte{
		"nothing":        nil,
		"half a length":  {0},
		"half a query":   framed(query())[:20],
		"two queries":    append(framed(query()), framed(query())...),
		"an ID":          framed(withID),
		"keepalive":      framed(keepalive),
		"an answer":      framed(answer),
		"an empty query": {0, 0},
	} {
		c, err := quic.DialAddr(t.Context(), addr, conf, patient)
		if err != nil {
			t.Fatal(err)
		}
		out, err := ask(t, c, b)
		var app *quic.ApplicationError
		if err == nil {
			select {
			case <-c.Context().Done():
				err = context.Cause(c.Context())
			case <-time.After(time.Minute):
			}
		}
		if !errors.As(err, &app) || app.ErrorCode != protocolError {
			t.Errorf("%s: %x, %v; want a protocol error", name, out, err)
		}
		c.CloseWithError(0, "")
	}
}
