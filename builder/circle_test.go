package builder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/tlog"
)

// A foreignBuilder is a build service that knows the formats and no opinions:
// asked for a record it "builds", asks the log of its own verifier for the
// same, compares, and only then logs.
type foreignBuilder struct {
	t        *testing.T
	log      *tlog.Log
	key, url string
	truth    spec.Record // what it builds
	careless bool        // it logs also what its verifier has otherwise
	refuse   int         // builds that it refuses first

	mu       sync.Mutex
	verifier *tlog.Client // of ours; nil: it asks nobody
	asked    int          // how often it was asked for a build
	failed   []error      // what its verifier answered
	builds   map[string]chan struct{}
}

func newForeignBuilder(t *testing.T, truth spec.Record) *foreignBuilder {
	signer, key, err := tlog.GenerateKey("foreign.test")
	if err != nil {
		t.Fatal(err)
	}
	log, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	f := &foreignBuilder{t: t, log: log, key: key, truth: truth, builds: map[string]chan struct{}{}}
	srv := httptest.NewServer(http.StripPrefix("/tlog", log.Handler(f.build)))
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

// names makes a service of ours its verifier.
func (f *foreignBuilder) names(ts *testService) {
	c, err := tlog.NewClient(tlog.ClientConfig{Key: ts.log.VerifierKey(), URL: ts.url + "/tlog", Dir: f.t.TempDir(), Attempts: 1})
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verifier = c
}

func (f *foreignBuilder) build(ctx context.Context, key string) error {
	f.mu.Lock()
	f.asked++
	if f.refuse > 0 {
		f.refuse--
		f.mu.Unlock()
		return tlog.ErrNotFound
	}
	done, running := f.builds[key]
	if !running {
		done = make(chan struct{})
		f.builds[key] = done
	}
	verifier := f.verifier
	f.mu.Unlock()
	if running { // all who ask for the same wait for one build
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.builds, key)
		close(done)
	}()
	if verifier != nil {
		rec, err := verifier.Lookup(context.WithoutCancel(ctx), key)
		if err == nil && !f.careless && string(rec.Data) != string(f.truth.Line()) {
			err = errors.New("its verifier differs")
		}
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.failed = append(f.failed, err)
			return err
		}
	}
	_, err := f.log.Append(ctx, tlog.Entry{Key: key, Text: f.truth.Line()})
	return err
}

// Builders of which one knows no opinions name each other. Whoever is asked
// first, nothing waits for ever: without asks_back both say so soon, with it
// both log. A different result is an alarm either way.
func TestForeignVerifierAsksBack(t *testing.T) {
	e, truth := hello(t)
	sp := truth.Spec
	lie := truth
	lie.Sum = "0AAECAwQFBgcICQoLDA0ODxAREhM"
	for _, tc := range []struct {
		name      string
		asksBack  bool
		theyFirst bool // they are asked for the build, else we are
		theirs    spec.Record
		logged    bool
		alarm     bool
	}{
		{"unknown, asked here", false, false, truth, false, false},
		{"unknown, asked there", false, true, truth, false, false},
		{"known, asked here", true, false, truth, true, false},
		{"known, asked there", true, true, truth, true, false},
		{"known, and differs", true, false, lie, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newForeignBuilder(t, tc.theirs)
			f.careless = tc.alarm
			ts := start(t, e, testOptions{change: func(c *Config) {
				c.Verifiers, c.Tries = []Verifier{{Key: f.key, URL: f.url + "/tlog", AsksBack: tc.asksBack}}, 2
				if !tc.asksBack {
					c.Require = 1
				}
				// Were one of them waiting for the other, this test would not end.
				c.VerifyTimeout = config.Duration(24 * time.Hour)
			}})
			ts.circles.grace = 50 * time.Millisecond
			f.names(ts)
			if tc.theyFirst {
				resp, err := http.Get(f.url + "/tlog/lookup/" + sp.String())
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if ok := resp.StatusCode == 200; ok != tc.logged {
					t.Errorf("they answer %d", resp.StatusCode)
				}
			}
			var lines []string
			res, err := ts.Watch(t.Context(), sp, "127.0.0.0/24", func(ev Event) error {
				lines = append(lines, ev.Line)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if logged := res.State == StateSuccess; logged != tc.logged {
				t.Fatalf("%+v: %q", res, lines)
			}
			if !tc.logged {
				if !strings.Contains(res.Error, "foreign.test asked for the same build in turn") {
					t.Errorf("%+v", res)
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				if len(f.failed) == 0 || !strings.Contains(f.failed[0].Error(), "not logged yet") {
					t.Errorf("they were told %v", f.failed)
				}
				if n := ts.log.Head().Size; n != 0 {
					t.Errorf("%d records", n)
				}
				return
			}
			// Their record is looked at after ours was logged.
			until(t, "their record is looked at", func() bool {
				if res, err = ts.Result(sp); err != nil {
					t.Fatal(err)
				}
				return len(res.Pending) == 0
			})
			agreed := slices.ContainsFunc(res.Agreed, func(a Agreement) bool { return a.Key == f.key && a.LogID == 0 })
			if alarm := len(ts.Status(t.Context()).Alarms) > 0; alarm != tc.alarm || agreed == tc.alarm {
				t.Errorf("agreed %+v, alarms %v", res.Agreed, ts.Status(t.Context()).Alarms)
			}
		})
	}
}

// When too few verifiers agree the next try asks them, and does not build again.
func TestAskAgain(t *testing.T) {
	e, truth := hello(t)
	sp := truth.Spec
	f := newForeignBuilder(t, truth)
	f.refuse = 2
	ts := start(t, e, testOptions{change: func(c *Config) {
		c.Verifiers, c.Require = []Verifier{{Key: f.key, URL: f.url + "/tlog"}}, 1
	}})
	compiled := 0
	res, err := ts.Watch(t.Context(), sp, "127.0.0.0/24", func(ev Event) error {
		if ev.Line == "Compiling." {
			compiled++
		}
		return nil
	})
	if err != nil || res.State != StateSuccess || res.Tries != 3 || len(res.Steps) == 0 || compiled != 1 {
		t.Errorf("%+v, %v, compiled %d times", res, err, compiled)
	}
}

// A verifier whose record can't be had is asked again, also after a restart.
func TestConfirmAgain(t *testing.T) {
	e, truth := hello(t)
	sp := truth.Spec
	f := newForeignBuilder(t, truth)
	asked := make(chan struct{}, 1)
	var mu sync.Mutex
	up := false
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !up {
			select {
			case asked <- struct{}{}:
			default:
			}
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		http.StripPrefix("/tlog", f.log.Handler(f.build)).ServeHTTP(w, r)
	}))
	defer door.Close()
	change := func(c *Config) {
		c.Verifiers = []Verifier{{Key: f.key, URL: door.URL + "/tlog", AsksBack: true}}
	}
	ts := start(t, e, testOptions{change: change})
	if _, err := ts.lookup(t, sp.String()); err != nil {
		t.Fatal(err)
	}
	await(t, "the verifier is asked", asked)
	ts.stop()
	mu.Lock()
	up = true
	mu.Unlock()
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, change: change})
	until(t, "the verifier is asked again", func() bool {
		res, err := ts.Result(sp)
		if err != nil {
			t.Fatal(err)
		}
		return len(res.Pending) == 0 && len(res.Agreed) == 1 && res.Agreed[0].LogID == 0
	})
}

// A verifier asks from the addresses of its log, and from where the
// configuration says.
func TestSources(t *testing.T) {
	_, key, err := tlog.GenerateKey("other.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		v    Verifier
		want string
	}{
		{Verifier{Key: key, URL: "http://127.0.0.1:1/tlog"}, "[127.0.0.1/32]"},
		{Verifier{Key: key, URL: "https://[::ffff:192.0.2.1]/tlog", From: []string{"2001:db8::/32", "192.0.2.77", "198.51.100.9/24"}}, "[2001:db8::/32 192.0.2.77/32 198.51.100.0/24 192.0.2.1/32]"},
	} {
		v, err := openVerifier(tc.v, t.TempDir(), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(v.sources(t.Context())); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.v, got, tc.want)
		}
	}
}

// Whom a lookup is turned away for.
func TestCircles(t *testing.T) {
	one, two := spec.Spec{Module: "example.org/one"}, spec.Spec{Module: "example.org/two"}
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tc := range []struct {
		name string
		spec spec.Spec
		addr netip.Addr
		away bool
	}{
		{"the same", one, here, true},
		{"another build", two, here, false},
		{"another address", one, there, false},
		{"no address", one, netip.Addr{}, false},
	} {
		for _, early := range []bool{true, false} {
			c := newCircles()
			c.grace = 0
			var ctx context.Context
			done := func() {}
			if early {
				ctx, done = c.wait(t.Context(), tc.spec, tc.addr)
			}
			end := c.ask(one, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")})
			until(t, "the grace is over", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.asked[0].due
			})
			if !early {
				ctx, done = c.wait(t.Context(), tc.spec, tc.addr)
			}
			if away := errors.Is(context.Cause(ctx), errCircle); away != tc.away {
				t.Errorf("%s, early %v: turned away %v", tc.name, early, away)
			}
			if met := end(); met != tc.away {
				t.Errorf("%s, early %v: met %v", tc.name, early, met)
			}
			done()
			if len(c.asked) != 0 || len(c.waiting) != 0 {
				t.Errorf("%s: left %v %v", tc.name, c.asked, c.waiting)
			}
		}
	}
	// One that answers before the grace is over turns nobody away.
	c := newCircles()
	ctx, done := c.wait(t.Context(), one, here)
	defer done()
	if end := c.ask(one, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}); end() || ctx.Err() != nil {
		t.Error("turned away")
	}
}
