package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/mod/module"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

// world is a builder's log, a module proxy, a checksum database and a zone.
type world struct {
	key, proxy, sumdb, builder string
	tree                       *zonetest.Tree
	anchor                     string
	asked                      int // requests at the proxy
}

func newWorld(t *testing.T) *world {
	t.Helper()
	zonetest.Epoch = time.Now().UTC().Truncate(time.Second)
	w := &world{tree: zonetest.New(t, zonetest.Fast), anchor: filepath.Join(t.TempDir(), "anchor")}
	if err := os.WriteFile(w.anchor, []byte(w.tree.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	builds, key := logtest.OpenLog(t, "builder.example.org")
	sums, sumKey := logtest.OpenLog(t, "sum.example.org")
	for _, mv := range []string{"example.org/hello@v1.0.0", "example.org/hello@v1.0.1", "example.org/hello@v1.0.9", "golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64"} {
		mod, v, _ := strings.Cut(mv, "@")
		esc, err := module.EscapePath(mod)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sums.Append(t.Context(), tlog.Entry{Key: esc + "@" + v, Text: fmt.Appendf(nil, "%s %s h1:a=\n%s %s/go.mod h1:b=\n", mod, v, mod, v)}); err != nil {
			t.Fatal(err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/builder/tlog/", http.StripPrefix("/builder/tlog", builds.Handler(nil)))
	mux.Handle("/sumdb/", http.StripPrefix("/sumdb", sums.Handler(nil)))
	mux.HandleFunc("/proxy/", func(rw http.ResponseWriter, r *http.Request) {
		w.asked++
		switch strings.TrimPrefix(r.URL.Path, "/proxy/") {
		case "example.org/hello/@v/list":
			io.WriteString(rw, "v1.0.0\nv1.0.1\nv1.0.9\n")
		case "golang.org/toolchain/@v/list":
			io.WriteString(rw, "v0.0.1-go1.26.8.linux-amd64\n")
		default:
			http.Error(rw, "not found: no such module", http.StatusNotFound)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	w.key, w.builder, w.proxy, w.sumdb = key, srv.URL+"/builder", srv.URL+"/proxy", sumKey+" "+srv.URL+"/sumdb"
	return w
}

// config is that of a user with these flags.
func (w *world) config(t *testing.T, args ...string) Config {
	t.Helper()
	var f sourceFlags
	fs := newFlagSet()
	f.discovery(fs)
	f.building(fs)
	if err := fs.Parse(append([]string{"-key", w.key, "-builder", w.builder, "-proxy", w.proxy, "-sumdb", w.sumdb}, args...)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	cfg, err := f.config()
	if err != nil {
		t.Fatal(err)
	}
	cfg.State, cfg.Discovery.Timeout = t.TempDir(), config.Duration(time.Minute)
	cfg.Fetch.Dir = filepath.Join(cfg.State, "fetch")
	return cfg
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	zone := []string{"-zone", zonetest.ZoneName, "-source", "udp://" + w.tree.Addr, "-anchor", w.anchor}
	other := func() []string { return append([]string(nil), zone...) }
	for _, tc := range []struct {
		name, arg string
		flags     []string
		attack    bool
		want      string // spec, or words of the error
	}{
		{"newest by the zone", "example.org/hello", zone, false, "example.org/hello@v1.0.1/linux-amd64-go1.27.4/"},
		{"newest by name", "example.org/hello@latest", zone, false, "example.org/hello@v1.0.1/linux-amd64-go1.27.4/"},
		{"exact, Go by the zone", "example.org/hello/cmd/x@v1.0.0", zone, false, "example.org/hello@v1.0.0/cmd/x/linux-amd64-go1.27.4/"},
		{"without a zone", "example.org/hello", nil, false, "example.org/hello@v1.0.9/linux-amd64-go1.26.8/"},
		{"exact without a zone", "example.org/hello@v1.0.0", nil, false, "example.org/hello@v1.0.0/linux-amd64-go1.26.8/"},
		{"unknown module", "example.org/nothing/cmd/x", zone, false, "example.org/nothing/cmd/x not found at the module proxy http"},
		{"a version that nobody has", "example.org/hello@v1.0.7", zone, false, "is not in the checksum database sum.example.org"},
		{"not a version", "example.org/hello@main", zone, false, "not an exact version"},
		{"not a path", "Hello World", zone, false, "is not MODULE"},
		{"an attack on the zone", "example.org/hello", zone, true, "does not verify"},
		{"an attack on the zone, exact version", "example.org/hello@v1.0.0", zone, true, "does not verify"},
		{"another zone", "example.org/hello", append(other(), "-zone", "nothing.test."), false, "does not exist"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.tree.Mu.Lock()
			w.tree.Attack = nil
			if tc.attack {
				w.tree.Attack = changeTXT
			}
			w.tree.Mu.Unlock()
			fd, err := newFinder(t.Context(), w.config(t, tc.flags...), t.Logf)
			if err != nil {
				t.Fatal(err)
			}
			defer fd.close()
			fd.goos, fd.goarch = "linux", "amd64"
			s, err := fd.find(t.Context(), tc.arg)
			if got := s.String(); err == nil && got != tc.want || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %v; want %q", got, err, tc.want)
			}
		})
	}

	t.Run("wrong key", func(t *testing.T) {
		_, key, err := tlog.GenerateKey("builder.example.org")
		if err != nil {
			t.Fatal(err)
		}
		fd, err := newFinder(t.Context(), w.config(t, "-key", key, "-builder", w.builder), t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		defer fd.close()
		before := w.asked
		if _, err := fd.find(t.Context(), "example.org/hello"); err == nil || !strings.Contains(err.Error(), "not signed by the configured key") || w.asked != before {
			t.Errorf("%v, after %d requests", err, w.asked-before)
		}
	})
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"/a/b": "/a/b", "/a b": "'/a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
	if commandName("github.com/x/go-y/v2/cmd/z@v1.0.0") != "z" || commandName("github.com/x/y/v3@latest") != "y" {
		t.Error("command names")
	}
}

func TestCheckCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{&discover.NotFoundError{}, checkNotFound},
		{fmt.Errorf("x: %w", discover.ErrUnreachable), checkSilent},
		{errors.Join(discover.ErrUnreachable, &discover.BogusError{Kind: discover.Expired}), checkDoubt},
		{fmt.Errorf("x: %w", discover.ErrStale), checkDoubt},
		{discover.ErrDisagree, checkDoubt},
		{&discover.InsecureError{}, checkDoubt},
	} {
		if got := checkCode(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
	if graver(checkNotFound, checkSilent) != checkSilent || graver(checkSilent, checkDoubt) != checkDoubt || graver(0, checkNotFound) != checkNotFound || graver(0, 0) != 0 {
		t.Error("order of exit codes")
	}
}

func TestPrintAnswer(t *testing.T) {
	w := newWorld(t)
	cfg := w.config(t, "-zone", zonetest.ZoneName, "-source", "udp://"+w.tree.Addr, "-anchor", w.anchor)
	d, err := discover.New(cfg.Discovery, discover.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var out bytes.Buffer
	a, err := askPackage(t.Context(), d, "example.org/hello/cmd/hello")
	printAnswer(&out, "example.org/hello/cmd/hello", a, err, true)
	for _, want := range []string{"module     example.org/hello\n", "newest     v1.0.1, discovered ", "also       v0.3.0", "Go         go1.27.4, go1.26.11 (previous)", "log        100 records, read ", "fresh      yes\n", "root (key ", "l.upkeep.test. key "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	out.Reset()
	a, err = askPackage(t.Context(), d, "example.org/nothing")
	printAnswer(&out, "example.org/nothing", a, err, false)
	if !strings.Contains(out.String(), "not found  module example.org/nothing not found: asked udp://") {
		t.Error(out.String())
	}
	if r := checkResult("example.org/nothing", a, err); r.Exit != checkNotFound || !r.Validated || r.LogSize != 100 || !r.Fresh || r.LastFresh == nil {
		t.Errorf("%+v", r)
	}
	w.tree.Mu.Lock()
	w.tree.Attack = changeTXT
	w.tree.Mu.Unlock()
	out.Reset()
	a, err = askPackage(t.Context(), d, "example.org/hello")
	printAnswer(&out, "example.org/hello", a, err, false)
	if r := checkResult("example.org/hello", a, err); r.Exit != checkDoubt || r.Validated || r.Fresh || r.Stale == nil || !strings.Contains(out.String(), "fresh      no, stale since ") {
		t.Errorf("%+v\n%s", r, out.String())
	}
}

func newFlagSet() *flag.FlagSet { return flag.NewFlagSet("test", flag.ContinueOnError) }

// changeTXT is somebody on the way who changes versions.
func changeTXT(q dns.Question, m *dns.Msg) *dns.Msg {
	for _, r := range m.Answer {
		if t, ok := r.(*dns.TXT); ok {
			t.Txt = []string{"v=v1.0.66 t=6a000000"}
		}
	}
	return m
}
