package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog"
)

// The tests drive the program as users do: this binary runs as upkeep-dns when
// the environment says so.
func TestMain(m *testing.M) {
	if os.Getenv("UPKEEP_DNS_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

const zone = "l.upkeep.test."

func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "UPKEEP_DNS_MAIN=1", "GOPROXY=off", "GOSUMDB=off"), env...)
	return cmd
}

// upkeepDNS runs a command that ends.
func upkeepDNS(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(nil, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Minute
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	endless := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
	_ = cmd.Wait() // the exit code says how
	if !endless.Stop() {
		t.Fatalf("%v does not end in five minutes\n%s%s", args, out.String(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// An origin is a module proxy with a checksum database behind it.
type origin struct {
	*httptest.Server
	log *tlog.Log
	key string

	mu       sync.Mutex
	versions map[string][]string
	fail     bool
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	skey, vkey, err := tlog.GenerateKey("sum.upkeep.test")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{key: vkey, versions: map[string][]string{}}
	if o.log, err = tlog.OpenLog(t.TempDir(), skey, tlog.LogOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.log.Close() })
	db := http.StripPrefix("/sumdb/sum.upkeep.test", o.log.Handler(nil))
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		fail := o.fail
		o.mu.Unlock()
		if fail {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		switch {
		case r.URL.Path == "/sumdb/sum.upkeep.test/supported":
		case strings.HasPrefix(r.URL.Path, "/sumdb/sum.upkeep.test/"):
			db.ServeHTTP(w, r)
		case strings.HasSuffix(r.URL.Path, "/@v/list"):
			o.mu.Lock()
			list, ok := o.versions[strings.Trim(strings.TrimSuffix(r.URL.Path, "/@v/list"), "/")]
			o.mu.Unlock()
			if !ok {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, strings.Join(list, "\n"))
		case strings.HasSuffix(r.URL.Path, ".info"):
			version := strings.TrimSuffix(filepath.Base(r.URL.Path), ".info")
			fmt.Fprintf(w, `{"Version":%q,"Time":"2026-11-01T00:00:00Z"}`, version)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(o.Server.Close)
	return o
}

func (o *origin) publish(t *testing.T, path, version string) {
	t.Helper()
	hash := "h1:" + strings.Repeat("A", 43) + "="
	text := fmt.Sprintf("%s %s %s\n%s %s/go.mod %s\n", path, version, hash, path, version, hash)
	if _, err := o.log.Append(t.Context(), tlog.Entry{Key: path + "@" + version, Text: []byte(text)}); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[path] = append(o.versions[path], version)
}

func (o *origin) setFail(fail bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = fail
}

// A server is a running `upkeep-dns serve`.
type server struct {
	cmd       *exec.Cmd
	dns, http string
	dot, doh  string
	stderr    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func serveProcess(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{cmd: command(nil, append([]string{"serve"}, args...)...), stderr: &lockedBuffer{}}
	s.cmd.Stderr, s.cmd.WaitDelay = s.stderr, time.Minute
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("%v:\n%s", args, s.stderr)
		}
	})
	lines := make(chan string)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	deadline := time.After(2 * time.Minute)
	for s.dns == "" || s.http == "" && slices.Contains(args, "-http") || s.doh == "" && slices.Contains(args, "-doh") {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("serve ended: %s", s.stderr)
			}
			if v, ok := strings.CutPrefix(line, "dns: "); ok {
				s.dns = v
			}
			if v, ok := strings.CutPrefix(line, "dot: "); ok {
				s.dot = v
			}
			if v, ok := strings.CutPrefix(line, "doh: "); ok {
				s.doh = v
			}
			if v, ok := strings.CutPrefix(line, "http: "); ok {
				s.http = v
			}
		case <-deadline:
			t.Fatalf("no address after 2 minutes: %s", s.stderr)
		}
	}
	go func() {
		for range lines {
		}
	}()
	return s
}

func (s *server) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// ask asks for a TXT record and verifies its signature with the zone's key.
func (s *server) ask(t *testing.T, key *dns.DNSKEY, qname string) (txt string, rcode int) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(qname, dns.TypeTXT)
	m.SetEdns0(1232, true)
	r, _, err := (&dns.Client{Timeout: time.Minute}).Exchange(m, s.dns)
	if err != nil {
		t.Fatalf("%s: %v", qname, err)
	}
	var set []dns.RR
	for _, rr := range r.Answer {
		if v, ok := rr.(*dns.TXT); ok {
			txt = strings.Join(v.Txt, "")
			set = append(set, rr)
		}
	}
	for _, rr := range r.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if err := sig.Verify(key, set); err != nil {
				t.Fatalf("%s: %v\n%v", qname, err, r)
			}
			return txt, r.Rcode
		}
	}
	if txt != "" {
		t.Fatalf("%s: no signature\n%v", qname, r)
	}
	return txt, r.Rcode
}

// await asks until the answer begins as wanted.
func (s *server) await(t *testing.T, key *dns.DNSKEY, qname, prefix string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		txt, rcode := s.ask(t, key, qname)
		if txt != "" && strings.HasPrefix(txt, prefix) {
			return
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("%s is %q (%s) after 2 minutes; want %q\n%s", qname, txt, dns.RcodeToString[rcode], prefix, s.stderr)
		}
	}
}

func keygen(t *testing.T) (dir string, key *dns.DNSKEY) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "keys")
	out, errs, code := upkeepDNS(t, "keygen", "-zone", zone, "-keys", dir)
	if code != 0 || !strings.Contains(out, "IN\tDS\t") {
		t.Fatalf("keygen: %s%s", out, errs)
	}
	keys, err := dnsserver.LoadKeys(dir, zone)
	if err != nil {
		t.Fatal(err)
	}
	return dir, keys[0].Public
}

func moduleName(t *testing.T, path string) string {
	t.Helper()
	q, err := name.Module(path, zone)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestBadInput(t *testing.T) {
	keys, _ := keygen(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "dns.toml")
	if err := os.WriteFile(file, []byte("listen = [':53']\n[zone]\nnam = 'x'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().String()
	good := []string{"serve", "-zone", zone, "-keys", keys, "-state", filepath.Join(dir, "state"), "-ns", "ns0=127.0.0.1", "-proxy", "http://127.0.0.1:1",
		"-database", "sum.golang.org", "-listen", "127.0.0.1:0"}
	with := func(args ...string) []string { return append(slices.Clone(good), args...) }
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"serve", "-config", file}, []string{"dns.toml:3:1", "zone.nam", "zone.name"}},
		{[]string{"config", "check", "-config", filepath.Join(dir, "none.toml")}, []string{"none.toml"}},
		{[]string{"serve", "-zone", zone}, []string{"nameserver"}},
		{[]string{"serve", "-zone", zone, "-ns", "ns0=127.0.0.1", "-keys", filepath.Join(dir, "k"), "-proxy", "http://127.0.0.1:1", "-database", "sum.golang.org"}, []string{"no signing key", "upkeep-dns keygen"}},
		{with("-listen", busy), []string{busy, "in use", "-listen"}},
		{with("-http", busy), []string{busy, "in use", "-http"}},
		{with("-database", "sum.golang.org+033de0ae+AAAA"), []string{"verifier key"}},
		{with("-database", "off"), []string{"GOSUMDB"}},
		{with("-interval", "soon"), []string{"not a duration"}},
		{with("-mode", "guess"), []string{"log.mode", "guess"}},
		{with("-watch", "not a path"), []string{"watch.modules"}},
		{[]string{"serve", "-zone", zone, "-keys", keys, "-state", dir, "-ns", "ns0=127.0.0.1", "-database", "sum.golang.org"}, []string{"log.proxy", "names no proxy"}},
		{with("-url", "ftp://user:hunter2@example.org"), []string{"log.url", "ftp://user:xxxxx@example.org", "is not an http"}},
		{[]string{"lookup", "-zone", zone, "-state", filepath.Join(dir, "none"), "example.org/x"}, []string{"serve or follow makes the index"}},
		{[]string{"keygen"}, []string{"-zone"}},
		{[]string{"keygen", "-zone", zone, "-keys", keys, "-algorithm", "rsa"}, []string{"ecdsap256sha256"}},
		{[]string{"lookup", "-zone", zone}, []string{"module path"}},
		{[]string{"frobnicate"}, []string{"frobnicate"}},
	} {
		_, errs, code := upkeepDNS(t, tc.args...)
		for _, want := range tc.want {
			if code == 0 || !strings.Contains(errs, want) {
				t.Errorf("%v: exit %d, want %q in\n%s", tc.args, code, want, errs)
			}
		}
		if strings.Contains(errs, "panic") || strings.Contains(errs, "goroutine") {
			t.Errorf("%v: %s", tc.args, errs)
		}
	}
}

// The printed default is a configuration once the zone is named.
func TestConfigDefault(t *testing.T) {
	out, errs, code := upkeepDNS(t, "config", "default")
	if code != 0 {
		t.Fatal(errs)
	}
	keys, _ := keygen(t)
	out = strings.Replace(out, "name = ''", "name = '"+zone+"'", 1)
	out = strings.Replace(out, "nameserver = []", "nameserver = [{name = 'ns0', addresses = ['192.0.2.1']}]", 1)
	out = strings.Replace(out, "keys = '/var/lib/upkeep-dns/keys'", "keys = '"+keys+"'", 1)
	out = strings.Replace(out, "proxy = ''", "proxy = 'http://127.0.0.1:1'", 1)
	out = strings.Replace(out, "database = ''", "database = 'sum.golang.org'", 1)
	file := filepath.Join(t.TempDir(), "dns.toml")
	if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := upkeepDNS(t, "config", "check", "-config", file); code != 0 {
		t.Errorf("%s%s", out, errs)
	}
}

func TestKeyRoll(t *testing.T) {
	keys, _ := keygen(t)
	status := func() string {
		t.Helper()
		out, errs, code := upkeepDNS(t, "key", "status", "-zone", zone, "-keys", keys)
		if code != 0 {
			t.Fatal(errs)
		}
		return out
	}
	if out := status(); strings.Count(out, "active") != 1 {
		t.Errorf("%s", out)
	}
	// -finish was forgotten: nothing begins.
	if _, errs, code := upkeepDNS(t, "key", "roll", "-ds-seen", "-zone", zone, "-keys", keys); code != 2 || strings.Count(status(), "active") != 1 {
		t.Errorf("exit %d: %s%s", code, errs, status())
	}
	out, errs, code := upkeepDNS(t, "key", "roll", "-zone", zone, "-keys", keys)
	if code != 0 || !strings.Contains(out, "IN\tDS\t") || strings.Count(status(), "active") != 2 {
		t.Errorf("%s%s%s", out, errs, status())
	}
	// No parent zone names the new key.
	refuse, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: refuse, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(m)
		w.WriteMsg(r)
	})}
	go srv.ActivateAndServe()
	defer srv.Shutdown()
	_, errs, code = upkeepDNS(t, "key", "roll", "-finish", "-resolver", refuse.LocalAddr().String(), "-zone", zone, "-keys", keys)
	if code == 0 || !strings.Contains(errs, "does not name the new key") {
		t.Errorf("%d %s", code, errs)
	}
	_, errs, code = upkeepDNS(t, "key", "roll", "-finish", "-ds-seen", "-zone", zone, "-keys", keys)
	if code == 0 || !strings.Contains(errs, "finish after that") {
		t.Errorf("%d %s", code, errs)
	}
	_, errs, code = upkeepDNS(t, "key", "roll", "-zsk", "-zone", zone, "-keys", keys)
	if code == 0 || !strings.Contains(errs, "no active zone-signing key") {
		t.Errorf("%d %s", code, errs)
	}
}

// A key that only signs data is known everywhere before it takes that over.
func TestKeygenZSK(t *testing.T) {
	keys, key := keygen(t)
	out, errs, code := upkeepDNS(t, "keygen", "-zsk", "-zone", zone, "-keys", keys)
	if code != 0 || !strings.Contains(out, "until then the other key signs the data") {
		t.Errorf("%s%s", out, errs)
	}
	list, err := dnsserver.LoadKeys(keys, zone)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, k := range list {
		if state := k.State(time.Now()); (k.Tag == key.KeyTag()) != (state == "active") || k.SEP() != (state == "active") {
			t.Errorf("key %d is %s", k.Tag, state)
		}
	}
}

func TestDS(t *testing.T) {
	keys, key := keygen(t)
	out, errs, code := upkeepDNS(t, "ds", "-zone", zone, "-keys", keys)
	if code != 0 || strings.TrimSpace(out) != key.ToDS(dns.SHA256).String() && !strings.Contains(out, key.ToDS(dns.SHA256).Digest[:8]) && !strings.Contains(strings.ToLower(out), key.ToDS(dns.SHA256).Digest) {
		t.Errorf("%s%s", out, errs)
	}
	out, _, _ = upkeepDNS(t, "ds", "-anchor", "-zone", zone, "-keys", keys)
	if !strings.Contains(out, "static-key 257 3 13") || !strings.Contains(out, key.PublicKey) {
		t.Error(out)
	}
}
