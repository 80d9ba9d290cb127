package dnsserver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestDoH(t *testing.T) {
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{})
	defer s.Close()
	web := httptest.NewUnstartedServer(s.DoH())
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	m := question(moxName, dns.TypeTXT, true)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 20)})
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	get := func(p []byte) *http.Request {
		r, _ := http.NewRequest("GET", web.URL+DoHPath+"?dns="+base64.RawURLEncoding.EncodeToString(p), nil)
		return r
	}
	post := func(typ string, p []byte) *http.Request {
		r, _ := http.NewRequest("POST", web.URL+DoHPath, bytes.NewReader(p))
		r.Header.Set("Content-Type", typ)
		return r
	}
	for _, r := range []*http.Request{get(packet), post(dohType, packet)} {
		resp, err := web.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != dohType || resp.Header.Get("Cache-Control") != "max-age=60" {
			t.Fatalf("%s: %v", r.Method, resp)
		}
		answer := judge(t, s.h, packet, body, Client{client.Addr, HTTPS})
		if texts(answer) != "v=v0.0.15 t=66fa7e15" || len(body)%468 != 0 {
			t.Errorf("%s: %d bytes, %v", r.Method, len(body), answer)
		}
	}
	put, _ := http.NewRequest("PUT", web.URL+DoHPath, nil)
	for _, tc := range []struct {
		r    *http.Request
		code int
	}{
		{get(nil), 400}, {get([]byte("x")), 400}, {post("text/plain", packet), 415}, {post(dohType, make([]byte, 70000)), 413}, {put, 405},
		{post("Application/DNS-Message", packet), 200}, // a media type has no case (RFC 9110, section 8.3.1)
	} {
		resp, err := web.Client().Do(tc.r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.code {
			t.Errorf("%s %s: %s; want %d", tc.r.Method, tc.r.URL, resp.Status, tc.code)
		}
	}
	// As many queries may be under way as connections.
	var leave []func()
	for range s.cfg.ConnsPerIP {
		l, ok := s.EnterStream(Client{netip.MustParseAddrPort("127.0.0.1:1"), HTTPS})
		if !ok {
			t.Fatal("the limit came early")
		}
		leave = append(leave, l)
	}
	for i, want := range []int{503, 200} {
		resp, err := web.Client().Do(get(packet))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s; want %d", resp.Status, want)
		}
		leave[i]()
	}
	if n := freshness(mustRespond(s.h, question("missing."+testZone, dns.TypeTXT, false))); n != 60 {
		t.Errorf("a denial is fresh for %d s", n)
	}
	if n := freshness(mustRespond(s.h, question(testZone, dns.TypeCAA, true))); n != 300 {
		t.Errorf("a record of the zone's own name is fresh for %d s", n)
	}
	if n := freshness(mustRespond(s.h, question("example.", dns.TypeTXT, false))); n != 0 {
		t.Errorf("a refusal is fresh for %d s", n)
	}
}

func mustRespond(h *Handler, m *dns.Msg) []byte {
	packet, _ := m.Pack()
	out, _ := h.Respond(nil, packet, client, true)
	return out
}

func TestDoT(t *testing.T) {
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{})
	defer s.Close()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.ServeStream(tls.NewListener(l, &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"dot"}}), TLS)
	c := dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"dot"}}, Timeout: time.Minute}
	for range 2 {
		r, _, err := c.Exchange(question(moxName, dns.TypeTXT, true), l.Addr().String())
		if err != nil || texts(r) != "v=v0.0.15 t=66fa7e15" {
			t.Fatalf("%v, %v", r, err)
		}
	}
	// One who speaks no TLS is cut off and disturbs nobody.
	plain, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	io.Copy(plain, strings.NewReader("GET / HTTP/1.0\r\n\r\n"))
	plain.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, plain); err != nil {
		t.Error(err)
	}
}
