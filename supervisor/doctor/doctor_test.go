package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

// Every kind of failure has advice of its own.
func TestExplain(t *testing.T) {
	errs := map[string]error{
		"insecure":     &discover.InsecureError{Zone: "x."},
		"no zone":      fmt.Errorf("x: %w", discover.ErrNoZone),
		"not found":    &discover.NotFoundError{},
		"malformed":    fmt.Errorf("x: %w", discover.ErrMalformed),
		"stale":        fmt.Errorf("%w: x", discover.ErrStale),
		"disagree":     fmt.Errorf("%w: x", discover.ErrDisagree),
		"unreachable":  fmt.Errorf("x: %w", discover.ErrUnreachable),
		"servfail":     errors.New("x answered SERVFAIL"),
		"refused":      errors.New("x answered REFUSED"),
		"build":        &fetch.BuildError{Permanent: true, URL: "u"},
		"build later":  &fetch.BuildError{URL: "u"},
		"no host":      &net.DNSError{IsNotFound: true, Name: "host.example"},
		"no resolver":  &net.DNSError{},
		"proxy":        &goproxy.MissingError{},
		"http 503":     &httpget.StatusError{Code: 503},
		"http 403":     &httpget.StatusError{Code: 403},
		"permission":   os.ErrPermission,
		"no file":      os.ErrNotExist,
		"authority":    x509.UnknownAuthorityError{},
		"host name":    x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"other.example"}}, Host: "host.example"},
		"expired":      x509.CertificateInvalidError{Reason: x509.Expired},
		"wrong use":    x509.CertificateInvalidError{Reason: x509.IncompatibleUsage},
		"not TLS":      tls.RecordHeaderError{},
		"alert":        tls.AlertError(40),
		"many, joined": errors.Join(os.ErrNotExist, &discover.BogusError{Kind: discover.Expired}),
	}
	for _, k := range discover.BogusKinds {
		errs["bogus "+k] = fmt.Errorf("x: %w", &discover.BogusError{Kind: k})
	}
	for _, k := range fetch.VerifyKinds {
		errs["verify "+k] = fmt.Errorf("x: %w", &fetch.VerifyError{Kind: k, Err: errors.New("x")})
	}
	unknown := Explain(errors.New("x"))
	generic := []string{unknown.Next, explainBogus(&discover.BogusError{}).Next, explainVerify(&fetch.VerifyError{}).Next}
	for name, err := range errs {
		a := Explain(err)
		if a.Whose == "" || a.Next == "" || slices.Contains(generic, a.Next) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if a := Explain(errs["many, joined"]); !strings.Contains(a.Whose, "replays") {
		t.Errorf("the gravest cause is not told: %+v", a)
	}
	if a := Explain(errs["host name"]); !strings.Contains(a.Next, "other.example") || !strings.Contains(a.Next, "host.example") {
		t.Errorf("%+v", a)
	}
}

func TestClock(t *testing.T) {
	now := zonetest.Epoch
	for _, tc := range []struct {
		off   time.Duration
		level string
		says  string
	}{
		{0, OK, "within 2s"}, {-time.Minute, OK, "within 1m0s"}, {3 * time.Minute, Warn, "3m0s ahead of"}, {-time.Hour, Fail, "1h0m0s behind"},
	} {
		if f := Clock(now.Add(tc.off), now, "host"); f.Level != tc.level || !strings.Contains(f.What, tc.says) {
			t.Errorf("%v: %+v", tc.off, f)
		}
	}
}

func TestUnit(t *testing.T) {
	const good = "[Service]\nExecStart=\"/opt/my upkeep\" run -config /srv/hello/upkeep.toml -- a\nUser=hello\nRestart=always\nKillMode=mixed\nProtectSystem=strict\nReadWritePaths=/srv/hello\n"
	facts := UnitFacts{Config: "/srv/hello/upkeep.toml", Dirs: []string{"/srv/hello", "/srv/hello/upkeep-state"}, Exists: func(f string) bool { return f == "/opt/my upkeep" }}
	for _, tc := range []struct{ old, new, level, says string }{
		{"", "", OK, "fits"},
		{"\"/opt/my upkeep\"", "/opt/other", Fail, "does not exist"},
		{" run ", " serve ", Fail, "does not run"},
		{"ExecStart", "#ExecStart", Fail, "no ExecStart"},
		{"-config /srv/hello/upkeep.toml", "-config /etc/upkeep.toml", Fail, "it uses the configuration /etc/upkeep.toml"},
		{"ReadWritePaths=/srv/hello", "ReadWritePaths=/srv/hell", Fail, "makes /srv/hello read-only"},
		{"ReadWritePaths=/srv/hello", "ReadWritePaths=/srv", OK, "fits"},
		{"ProtectSystem=strict\nReadWritePaths=/srv/hello", "", OK, "fits"},
		{"Restart=always", "Restart=no", Warn, "Restart"},
		{"KillMode=mixed", "KillMode=process", Warn, "leaves the service behind"},
		{"User=hello", "", Warn, "root"},
	} {
		got := Unit("u", strings.Replace(good, tc.old, tc.new, 1), facts)
		if got[0].Level != tc.level || !strings.Contains(got[0].What, tc.says) {
			t.Errorf("%q → %q: %+v", tc.old, tc.new, got)
		}
	}
}

func TestJudgeFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no mode bits here")
	}
	file := filepath.Join(t.TempDir(), "bin")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		mode  os.FileMode
		user  string
		level string
		says  string
	}{
		{0o755, "", OK, "can be executed"},
		{0o644, "", Fail, "cannot execute"},
		{0o757, "", Fail, "everybody"},
		{0o755, "no-such-user-here", Fail, "no-such-user-here"},
	} {
		if err := os.Chmod(file, tc.mode); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := judgeFile(file, fi, tc.user); got[0].Level != tc.level || !strings.Contains(got[0].What, tc.says) {
			t.Errorf("%o %q: %+v", tc.mode, tc.user, got)
		}
	}
}

// TestExamine walks a whole path that works, and then breaks links of it.
func TestExamine(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	l, verifier := logtest.OpenLog(t, "builder.example.org")
	mux := http.NewServeMux()
	mux.Handle("/tlog/", http.StripPrefix("/tlog", l.Handler(nil)))
	mux.HandleFunc("/proxy/"+zonetest.Module+"/@v/list", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "v1.0.0\n") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
		}
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	bin := filepath.Join(dir, "hello")
	anchor := filepath.Join(dir, "anchor")
	for file, text := range map[string]string{bin: "x", anchor: tr.Anchor()} {
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(bin+".service", []byte("[Service]\nExecStart="+bin+" run\nUser=x\nRestart=always\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	patient := func(change func(*discover.Config, *fetch.Config, *Patient)) Patient {
		dc := discover.DefaultConfig()
		dc.Zone, dc.Sources, dc.Anchor = zonetest.ZoneName, []string{"udp://" + tr.Addr}, anchor
		fc := fetch.Config{Key: verifier, Builder: srv.URL, Dir: t.TempDir(), Proxy: srv.URL + "/proxy"}
		// The certificate of the test's server is good for many years.
		p := Patient{Module: zonetest.Module, Path: bin, State: dir, Cache: dir, HTTP: srv.Client(), Now: func() time.Time { return zonetest.Epoch }}
		if change != nil {
			change(&dc, &fc, &p)
		}
		var err error
		if p.Discover, err = discover.New(dc, discover.Options{Now: func() time.Time { return zonetest.Epoch }}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Discover.Close)
		if p.Fetch, err = fetch.New(fc, fetch.Options{HTTP: srv.Client()}); err != nil {
			t.Fatal(err)
		}
		return p
	}
	examine := func(p Patient) (all string, levels map[string]string) {
		levels = map[string]string{}
		Examine(t.Context(), p, func(f Finding) {
			all += fmt.Sprintf("%s %s: %s / %s / %s\n", f.Level, f.Link, f.What, f.Whose, f.Next)
			if levels[f.Link] != Fail {
				levels[f.Link] = f.Level
			}
			if f.Level == Fail && (f.Whose == "" || f.Next == "") {
				t.Errorf("no advice: %+v", f)
			}
		})
		return all, levels
	}

	all, levels := examine(patient(nil))
	for _, link := range []string{"source udp://" + tr.Addr, "keys of .", "keys of test.", "keys of " + zonetest.ZoneName, "answer of udp://" + tr.Addr, "builder TLS", "builder log", "module proxy", "state folder", "shared folder", "disk", "binary's folder", "binary", "unit"} {
		if levels[link] != OK {
			t.Errorf("%s is %q:\n%s", link, levels[link], all)
		}
	}
	// The test's clock is not that of the HTTP server.
	if levels["clock"] == OK || levels["checksum database"] != Fail {
		t.Errorf("clock and checksum database:\n%s", all)
	}

	for _, tc := range []struct {
		name   string
		change func(*discover.Config, *fetch.Config, *Patient)
		attack func(q dns.Question, m *dns.Msg) *dns.Msg
		link   string
		says   string
	}{
		{"expired zone", nil, func(q dns.Question, m *dns.Msg) *dns.Msg {
			for _, r := range m.Answer {
				if s, ok := r.(*dns.RRSIG); ok {
					s.Expiration = uint32(zonetest.Epoch.Add(-time.Hour).Unix())
				}
			}
			return m
		}, "answer of udp://" + tr.Addr, "Check this machine's date"},
		{"signatures stripped", nil, func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Answer = slices.DeleteFunc(m.Answer, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeRRSIG })
			return m
		}, "answer of udp://" + tr.Addr, "middlebox"},
		{"resolver fails", nil, func(q dns.Question, m *dns.Msg) *dns.Msg {
			m.Rcode, m.Answer, m.Ns = dns.RcodeServerFailure, nil, nil
			return m
		}, "source udp://" + tr.Addr, "SERVFAIL"},
		{"builder with an unknown authority", func(_ *discover.Config, _ *fetch.Config, p *Patient) { p.HTTP = &http.Client{} }, nil, "builder TLS", "authority"},
		{"wrong key", func(_ *discover.Config, f *fetch.Config, p *Patient) {
			_, f.Key, _ = tlog.GenerateKey("builder.example.org")
		}, nil, "builder log", "Compare fetch.key"},
		{"proxy without the module", func(_ *discover.Config, f *fetch.Config, p *Patient) { f.Proxy = srv.URL }, nil, "module proxy", "Check the module's path"},
		{"no state folder", func(_ *discover.Config, _ *fetch.Config, p *Patient) { p.State = filepath.Join(dir, "nothing") }, nil, "state folder", "Create the file"},
		{"no shared folder", func(_ *discover.Config, _ *fetch.Config, p *Patient) {
			p.Cache, p.State = filepath.Join(dir, "nothing"), filepath.Join(dir, "nothing")
		}, nil, "state folder", "install -d -m 1777 " + filepath.Join(dir, "nothing")},
		{"no binary", func(_ *discover.Config, _ *fetch.Config, p *Patient) { p.Path = filepath.Join(dir, "nothing") }, nil, "binary", "correct its name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr.Mu.Lock()
			tr.Attack = tc.attack
			tr.Mu.Unlock()
			all, levels := examine(patient(tc.change))
			if levels[tc.link] != Fail || !strings.Contains(all, tc.says) {
				t.Errorf("%s is %q, want %q in:\n%s", tc.link, levels[tc.link], tc.says, all)
			}
		})
	}
}
