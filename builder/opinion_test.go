package builder

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// A later is a handler that is set after its server was started.
type later struct {
	mu sync.Mutex
	h  http.Handler
}

func (l *later) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	h := l.h
	l.mu.Unlock()
	h.ServeHTTP(w, r)
}

func (l *later) set(h http.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h = h
}

// Three builders, each with one place for a build, require each other's sums in
// a circle. Asked for different things at the same time, all of them log all,
// with the numbers of each other's records.
func TestVerifiersInACircle(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	const n = 3
	names := []string{"a.test", "b.test", "c.test"}
	var keys, verifiers []string
	var doors []*later
	var urls []string
	for _, name := range names {
		signer, verifier, err := tlog.GenerateKey(name)
		if err != nil {
			t.Fatal(err)
		}
		keys, verifiers = append(keys, signer), append(verifiers, verifier)
		door := &later{h: http.NotFoundHandler()}
		srv := httptest.NewServer(door)
		defer srv.Close()
		doors, urls = append(doors, door), append(urls, srv.URL)
	}
	var builders []*testService
	for i := range n {
		b := startWithKey(t, e, keys[i], func(c *Config) {
			next := (i + 1) % n
			c.Verifiers, c.Require, c.Parallel = []Verifier{{Key: verifiers[next], URL: urls[next] + "/tlog"}}, 1, 1
		})
		doors[i].set(b)
		builders = append(builders, b)
	}
	var wg sync.WaitGroup
	for i, b := range builders {
		wg.Go(func() {
			sp := "example.org/hello@" + []string{"v1.0.0", "v1.0.1", "v1.0.0"}[i] + "/" + target() + "/"
			if _, err := b.lookup(t, sp); err != nil {
				t.Errorf("builder %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i, b := range builders {
		for _, v := range []string{"v1.0.0", "v1.0.1"} {
			sp, err := spec.Parse("example.org/hello@" + v + "/" + target() + "/")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.lookup(t, sp.String()); err != nil {
				t.Fatalf("builder %d, %s: %v", i, v, err)
			}
			// The number in the other log comes when that has logged, too.
			other := builders[(i+1)%n]
			if _, err := other.lookup(t, sp.String()); err != nil {
				t.Fatal(err)
			}
			id, ok := other.log.Find(sp.String())
			if !ok {
				t.Fatal("not logged")
			}
			var res Result
			until(t, "the number in the other log", func() bool {
				var err error
				if res, err = b.Result(sp); err != nil || res.State != StateSuccess {
					t.Fatalf("%+v, %v", res, err)
				}
				return len(res.Agreed) == 0 || res.Agreed[0].LogID >= 0
			})
			if len(res.Agreed) != 1 || res.Agreed[0] != (Agreement{names[(i+1)%n], verifiers[(i+1)%n], res.Sum, id}) {
				t.Errorf("builder %d, %s: agreed %+v; number %d", i, v, res.Agreed, id)
			}
			if got, want := agreedHeader(res.Agreed), fmt.Sprintf("%s %d", names[(i+1)%n], id); got != want {
				t.Errorf("for programs it is %q; want %q", got, want)
			}
		}
	}
}

// An opinion that is forged, or not followed by its record, counts as what it is.
func TestOpinions(t *testing.T) {
	e, truth := hello(t)
	sp := truth.Spec
	lie := truth
	lie.Sum = "0AAECAwQFBgcICQoLDA0ODxAREhM"
	other := truth
	other.Version = "v1.0.1"

	signer, verifier, err := tlog.GenerateKey("peer.test")
	if err != nil {
		t.Fatal(err)
	}
	forger, _, err := tlog.GenerateKey("peer.test")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key, text string) string {
		s, err := note.NewSigner(key)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		return string(msg)
	}
	for _, tc := range []struct {
		name    string
		opinion string // "" for a server that knows none
		logged  spec.Record
		ok      bool
		alarm   bool
		later   bool // the alarm comes when the log is looked at
	}{
		{name: "same, then logged", opinion: sign(signer, formatOpinion(truth, false)), logged: truth, ok: true},
		{name: "another server", logged: truth, ok: true},
		{name: "another server that differs", logged: lie, alarm: true},
		{name: "logged says the opinion, with proof", opinion: sign(signer, formatOpinion(truth, true)), logged: truth, ok: true},
		{name: "logged says the opinion, but another sum is", opinion: sign(signer, formatOpinion(truth, true)), logged: lie, alarm: true},
		{name: "same, but logs another", opinion: sign(signer, formatOpinion(truth, false)), logged: lie, ok: true, alarm: true, later: true},
		{name: "differs", opinion: sign(signer, formatOpinion(lie, false)), logged: truth, alarm: true},
		{name: "forged", opinion: sign(forger, formatOpinion(truth, false)), logged: truth},
		{name: "of something else", opinion: sign(signer, formatOpinion(other, false)), logged: truth},
		{name: "a tree head", opinion: sign(signer, "go.sum database tree\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"), logged: truth},
		{name: "rubbish", opinion: "rubbish", logged: truth},
		{name: "long", opinion: strings.Repeat("x", 1<<20), logged: truth},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			if _, err := log.Append(t.Context(), tlog.Entry{Key: sp.String(), Text: tc.logged.Line()}); err != nil {
				t.Fatal(err)
			}
			logs := http.StripPrefix("/tlog", log.Handler(nil))
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/tlog/") || tc.opinion == "" {
					logs.ServeHTTP(w, r)
					return
				}
				w.Header().Set(opinionHeader, "1")
				w.Write([]byte(tc.opinion))
			}))
			defer srv.Close()
			ts := start(t, e, testOptions{change: func(c *Config) {
				c.Verifiers, c.Require = []Verifier{{Key: verifier, URL: srv.URL + "/tlog"}}, 1
			}})
			said, err := ts.agree(t.Context(), t.Context(), built{record: truth})
			if (err == nil) != tc.ok {
				t.Errorf("they said %+v, %v", said, err)
			}
			if tc.later {
				if len(ts.Status(t.Context()).Alarms) > 0 {
					t.Error("an alarm too early")
				}
				ts.confirm(t.Context(), built{record: truth}, Result{Spec: sp, State: StateSuccess, Sum: truth.Sum, Agreed: agreements(said), Pending: ts.pending(said)})
			}
			if st := ts.Status(t.Context()); (len(st.Alarms) > 0) != tc.alarm {
				t.Errorf("alarms %v", st.Alarms)
			}
		})
	}
}
