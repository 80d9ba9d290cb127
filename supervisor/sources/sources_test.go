package sources

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

// world is a builder, a module proxy and a checksum database.
type world struct {
	f      *fetch.Fetcher
	builds atomic.Int32 // lookups at the builder
}

const gomod = "// Deprecated: use another one\nmodule example.org/hello\n\ngo 1.26\n\nretract v1.0.0 // eats files\n"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	builds, key := logtest.OpenLog(t, "builder.example.org")
	sums, sumKey := logtest.OpenLog(t, "sum.example.org")
	hash, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(gomod)), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v1.0.0", "v1.0.1"} {
		text := fmt.Appendf(nil, "example.org/hello %s h1:x=\nexample.org/hello %s/go.mod %s\n", v, v, hash)
		if _, err := sums.Append(t.Context(), tlog.Entry{Key: "example.org/hello@" + v, Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	mux := http.NewServeMux()
	log := http.StripPrefix("/builder/tlog", builds.Handler(nil))
	mux.HandleFunc("/builder/tlog/", func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/lookup/") {
			w.builds.Add(1)
		}
		log.ServeHTTP(rw, r)
	})
	mux.Handle("/sumdb/", http.StripPrefix("/sumdb", sums.Handler(nil)))
	mux.HandleFunc("/proxy/example.org/hello/@v/", func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/list"):
			io.WriteString(rw, "v1.0.0\nv1.0.1\nv1.1.0-rc1\n")
		case strings.HasSuffix(r.URL.Path, ".mod"):
			io.WriteString(rw, gomod)
		default:
			http.NotFound(rw, r)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	if w.f, err = fetch.New(fetch.Config{Key: key, Builder: srv.URL + "/builder", Dir: t.TempDir(), Proxy: srv.URL + "/proxy", SumDB: sumKey + " " + srv.URL + "/sumdb"}, fetch.Options{}); err != nil {
		t.Fatal(err)
	}
	return w
}

func newDiscoverer(t *testing.T, tr *zonetest.Tree, sources ...string) *discover.Discoverer {
	t.Helper()
	cfg := discover.DefaultConfig()
	cfg.Zone, cfg.Sources, cfg.Anchor = zonetest.ZoneName, sources, filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(cfg.Anchor, []byte(tr.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := discover.New(cfg, discover.Options{Now: func() time.Time { return zonetest.Epoch }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// What the zone says and what the module's author says come together.
func TestAsk(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	w := newWorld(t)
	v := &Versions{Discover: newDiscoverer(t, tr, "tcp://"+tr.Addr), Fetch: w.f}
	k, err := v.Ask(t.Context(), zonetest.Module)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Releases) != 2 || k.Releases[0].Version != "v1.0.1" || k.Releases[0].Deprecated != "use another one" || k.Releases[0].MinGo != "go1.26" || k.Releases[0].Unchecked != "" {
		t.Errorf("%+v", k.Releases)
	}
	if len(k.GoReleases) != 2 || k.LogSize != 100 || len(k.Events) != 0 || !k.StaleSince.IsZero() || !strings.Contains(k.Proof, "validated with DNSSEC") {
		t.Errorf("%+v", k)
	}
	list, err := v.List(t.Context(), zonetest.Module, "v1.0")
	if err != nil || len(list) != 2 || list[1].Version != "v1.0.0" || list[1].Retracted != "eats files" {
		t.Errorf("list %+v, %v", list, err)
	}
	if why, err := v.Withdrawn(t.Context(), zonetest.Module, "v1.0.0"); err != nil || why != "eats files" {
		t.Errorf("withdrawn: %q, %v", why, err)
	}
	// Without a way to the author's words nothing is known of retractions.
	v = &Versions{Discover: v.Discover}
	if k, err := v.Ask(t.Context(), zonetest.Module); err != nil || k.Releases[0].Unchecked == "" {
		t.Errorf("%+v, %v", k.Releases, err)
	}
}

// One source of two that lies, or says nothing, is an event and no failure;
// alone it is a failure of its kind.
func TestAskLies(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	bad, silent := tr.NewPath(t), tr.NewPath(t)
	bad.SetAttack(func(_ dns.Question, m *dns.Msg) *dns.Msg { return zonetest.Unsigned(m) })
	silent.SetAttack(func(_ dns.Question, m *dns.Msg) *dns.Msg { m.Rcode = 2; return m })
	for _, tc := range []struct {
		name    string
		sources []string
		events  []string
		kind    string
	}{
		{"two and an honest one", []string{"tcp://" + bad.Addr, "tcp://" + silent.Addr, "tcp://" + tr.Addr}, []string{"dns_missing_signature", "dns_unreachable"}, ""},
		{"alone", []string{"tcp://" + bad.Addr}, nil, "dns_missing_signature"},
		{"silent alone", []string{"tcp://" + silent.Addr}, []string{"dns_unreachable"}, "none"},
	} {
		k, err := (&Versions{Discover: newDiscoverer(t, tr, tc.sources...)}).Ask(t.Context(), zonetest.Module)
		var kinds []string
		for _, e := range k.Events {
			kinds = append(kinds, e.Kind)
			if e.Security != (e.Kind != "dns_unreachable") {
				t.Errorf("%s: %+v", tc.name, e)
			}
			if !slices.Contains(Kinds(), e.Kind) && e.Security {
				t.Errorf("%s has no metric", e.Kind)
			}
		}
		slices.Sort(kinds)
		var ve *supervisor.VerificationError
		kind := ""
		if errors.As(err, &ve) {
			kind = ve.Kind
		} else if err != nil {
			kind = "none"
		}
		if !slices.Equal(kinds, tc.events) || kind != tc.kind {
			t.Errorf("%s: events %q, error %q (%v)", tc.name, kinds, kind, err)
		}
	}
}

// A version that the checksum database does not have is not even built, so a
// name server cannot have one made up.
func TestLookupAsksTheDatabaseFirst(t *testing.T) {
	w := newWorld(t)
	b := &Binaries{Fetch: w.f}
	s := spec.Spec{Module: "example.org/hello", Version: "v1.0.7", GOOS: "linux", GOARCH: "amd64", GoVersion: "go1.26.8"}
	_, err := b.Lookup(t.Context(), s, func(supervisor.Progress) {})
	var ve *supervisor.VerificationError
	if !errors.As(err, &ve) || ve.Kind != fetch.SumDBMissing || w.builds.Load() != 0 {
		t.Errorf("%v, after %d lookups at the builder", err, w.builds.Load())
	}
	s.Version = "v1.0.1"
	_, err = b.Lookup(t.Context(), s, func(supervisor.Progress) {})
	if err == nil || w.builds.Load() == 0 { // this builder has nothing
		t.Errorf("%v, after %d lookups at the builder", err, w.builds.Load())
	}
}
