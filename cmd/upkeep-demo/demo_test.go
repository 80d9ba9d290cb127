package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/bits"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestFindForm(t *testing.T) {
	const page = `<form method="get" action="/search"><button>Upgrade now</button></form>
<form method="post" action="/other"><button>Pause</button></form>
<form method="POST" action="/action"><input type="hidden" name="verb" value="update"><input type="checkbox" name="force" value="1">
<button name="version" value="v1.0.1"><span>Upgrade</span> now
to v1.0.1</button></form>`
	action, fields, err := findForm(page, "Upgrade now to v1.0.1")
	if err != nil || action != "/action" || fields.Encode() != "verb=update&version=v1.0.1" {
		t.Errorf("got %q, %q, %v", action, fields.Encode(), err)
	}
	if _, _, err := findForm(page, "Upgrade now to v1.0.2"); err == nil {
		t.Error("found a button that is not there")
	}
}

func TestNextPatch(t *testing.T) {
	for in, want := range map[string]string{"v1.0.0": "v1.0.1", "v2.3.9": "v2.3.10", "1.0.0": "", "v1.0.0x": ""} {
		if got, err := nextPatch(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestMetric(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "# HELP a_total x\na_total{kind=\"x\",z=\"1\"} 2\na_total{kind=\"x\",z=\"2\"} 3\na_total{kind=\"y\"} 0\na_total_other 9\nb 1.5e+03\n")
	}))
	defer srv.Close()
	for _, tc := range []struct {
		name, label string
		want        float64
		found       bool
	}{
		{"a_total", `kind="x"`, 5, true},
		{"a_total", `kind="y"`, 0, true},
		{"a_total", `kind="z"`, 0, false},
		{"b", "", 1500, true},
		{"a", "", 0, false},
	} {
		got, found, err := metric(t.Context(), srv.URL, tc.name, tc.label)
		if err != nil || got != tc.want || found != tc.found {
			t.Errorf("%s %s: %v, %v, %v; want %v, %v", tc.name, tc.label, got, found, err, tc.want, tc.found)
		}
	}
}

// The process behind a port is the one that listens, by the kernel's word.
func TestListeners(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel is asked on Linux only")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pids, err := listeners(ln.Addr().String())
	if err != nil || len(pids) != 1 || pids[0] != os.Getpid() {
		t.Errorf("listeners %v, %v; want this process, %d", pids, err, os.Getpid())
	}
	ln.Close()
	if pids, err := listeners(ln.Addr().String()); err != nil || len(pids) != 0 {
		t.Errorf("listeners on a closed port: %v, %v", pids, err)
	}
}

// The lie about a binary is one bit, and everything else goes through as it is.
func TestHTTPRelay(t *testing.T) {
	program := bytes.Repeat([]byte("program "), 1000)
	builder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".gz") {
			zw := gzip.NewWriter(w)
			zw.Write(program)
			zw.Close()
			return
		}
		w.Write(program)
	}))
	defer builder.Close()
	target, err := url.Parse(builder.URL)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newHTTPRelay("127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	get := func(path string) []byte {
		t.Helper()
		resp, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err == nil && strings.HasSuffix(path, ".gz") {
			var zr *gzip.Reader
			if zr, err = gzip.NewReader(bytes.NewReader(data)); err == nil {
				data, err = io.ReadAll(zr)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	changed := func(data []byte) (n int) {
		if len(data) != len(program) {
			t.Fatalf("%d bytes; want %d", len(data), len(program))
		}
		for i := range data {
			n += bits.OnesCount8(data[i] ^ program[i])
		}
		return n
	}
	binary := "/example.org/hello@v1.0.0/linux-amd64-go1.26.8/0sum/hello-v1.0.0-go1.26.8"
	if n := changed(get(binary)); n != 0 {
		t.Errorf("honest: %d bits differ", n)
	}
	r.mu.Lock()
	r.flip = true
	r.mu.Unlock()
	for path, want := range map[string]int{binary: 1, binary + ".gz": 1, "/example.org/hello@v1.0.0/linux-amd64-go1.26.8/0sum/log": 0, "/tlog/latest": 0} {
		if n := changed(get(path)); n != want {
			t.Errorf("%s: %d bits differ; want %d", path, n, want)
		}
	}
	if flipped, _ := r.honest(); flipped != 2 {
		t.Errorf("%d lies counted; want 2", flipped)
	}
	if n := changed(get(binary)); n != 0 {
		t.Errorf("honest again: %d bits differ", n)
	}
}

// The forged answer is signed, so only its key betrays it.
func TestDNSRelay(t *testing.T) {
	const zone = "l.upkeep.test."
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	honest := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		resp := new(dns.Msg)
		resp.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN TXT \"v=v1.0.0 t=1\"")
		resp.Answer = []dns.RR{rr}
		_ = w.WriteMsg(resp)
	})}
	go honest.ActivateAndServe()
	defer honest.Shutdown()

	var r *dnsRelay
	for tries := 0; r == nil; tries++ { // until a port is free for both
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		if r, err = newDNSRelay(ln.Addr().String(), pc.LocalAddr().String(), zone); err != nil && tries == 20 {
			t.Fatal(err)
		}
	}
	defer r.close()
	ask := func() *dns.Msg {
		t.Helper()
		q := new(dns.Msg)
		q.SetQuestion("hello."+zone, dns.TypeTXT)
		q.SetEdns0(1232, true)
		resp, _, err := (&dns.Client{Timeout: time.Minute}).Exchange(q, r.addr)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if got := ask().Answer; len(got) != 1 || !strings.Contains(got[0].String(), "v=v1.0.0") {
		t.Fatalf("honest: %v", got)
	}
	r.forge("v9.9.9")
	got := ask().Answer
	if len(got) != 2 || !strings.Contains(got[0].String(), "v=v9.9.9") {
		t.Fatalf("forged: %v", got)
	}
	if err := got[1].(*dns.RRSIG).Verify(r.key, got[:1]); err != nil {
		t.Errorf("the forged answer's signature is not even its own key's: %v", err)
	}
	if n := r.honest(); n != 1 {
		t.Errorf("%d lies counted; want 1", n)
	}
}
