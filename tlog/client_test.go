package tlog

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/metric"
)

// A switcher serves another handler from one request to the next.
type switcher struct{ h atomic.Pointer[http.Handler] }

func (s *switcher) set(h http.Handler) { s.h.Store(&h) }
func (s *switcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.h.Load()).ServeHTTP(w, r)
}

// twoHistories returns logs of one key that part after the given number of records.
func twoHistories(t *testing.T, common int) (a, b *Log, verifier string) {
	signer, verifier := newKey(t)
	a = openTestLog(t, t.TempDir(), signer)
	b = openTestLog(t, t.TempDir(), signer)
	if common > 0 {
		fill(t, a, 0, common)
		fill(t, b, 0, common)
	}
	return a, b, verifier
}

func TestClientFollowsHeads(t *testing.T) {
	signer, verifier := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	url, dir := serveLog(t, l).URL, t.TempDir()
	reg := metric.New()
	size := 0
	for _, next := range []int{0, 1, 2, 200, 256, 300, 512, 513, 5000} {
		if next > size {
			fill(t, l, size, next)
			size = next
		}
		// A new client each time: what it knows must come from the state folder.
		c, err := NewClient(ClientConfig{Key: verifier, URL: url, Dir: dir, Metrics: reg})
		if err != nil {
			t.Fatal(err)
		}
		head, err := c.Update(t.Context())
		if err != nil || head.Size != int64(size) || head.Hash != l.Head().Hash {
			t.Fatalf("Update: %d %v, %v; want %d %v", head.Size, head.Hash, err, size, l.Head().Hash)
		}
		if kept, ok := c.Head(); !ok || kept.Size != int64(size) || kept.Accepted.IsZero() || c.Checked().IsZero() {
			t.Fatalf("Head: %+v, %v", kept, ok)
		}
	}
	c := newTestClient(t, verifier, url, dir)
	if _, err := c.Lookup(t.Context(), "example.org/none@v1.0.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown key: %v; want ErrNotFound", err)
	}
	if got := c.metricsFor(reg).size.Value(); got != 5000 {
		t.Errorf("metric upkeep_tlog_head_size is %v; want 5000", got)
	}
}

func (c *Client) metricsFor(reg *metric.Registry) *clientMetrics {
	return newClientMetrics(reg, c.Name())
}

func TestClientFork(t *testing.T) {
	for _, tc := range []struct {
		name            string
		common, a, b    int
		fork, undecided bool
	}{
		{name: "longer", common: 300, a: 400, b: 700, fork: true},
		{name: "same size", common: 300, a: 400, b: 400, fork: true},
		{name: "shorter", common: 300, a: 400, b: 350, undecided: true},
		{name: "from the first record", common: 0, a: 10, b: 1000, fork: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b, verifier := twoHistories(t, tc.common)
			fill(t, a, tc.common, tc.a)
			if id, err := b.Append(t.Context(), Entry{"x@v1.0.0", []byte("other\n")}); err != nil || id != int64(tc.common) {
				t.Fatal(err)
			}
			fill(t, b, tc.common+1, tc.b)
			var sw switcher
			srv := httptest.NewServer(&sw)
			defer srv.Close()
			dir, reg := t.TempDir(), metric.New()
			c, err := NewClient(ClientConfig{Key: verifier, URL: srv.URL, Dir: dir, Attempts: 1, Metrics: reg})
			if err != nil {
				t.Fatal(err)
			}
			sw.set(a.Handler(nil))
			if _, err := c.Update(t.Context()); err != nil {
				t.Fatal(err)
			}
			sw.set(b.Handler(nil))
			for _, ask := range []func() error{
				func() error { _, err := c.Update(t.Context()); return err },
				func() error { _, err := c.Lookup(t.Context(), "x@v1.0.0"); return err },
			} {
				err := ask()
				var fork *ForkError
				if errors.As(err, &fork) != tc.fork || errors.Is(err, ErrShrunk) != tc.undecided {
					t.Fatalf("got %v", err)
				}
				kind := "fork"
				if tc.undecided {
					kind = "shrunk"
				}
				files, _ := filepath.Glob(filepath.Join(dir, "*."+kind+"-*.txt"))
				if len(files) != 1 {
					t.Fatalf("evidence: %v; want one file", files)
				}
				text, err := os.ReadFile(files[0])
				if err != nil || !strings.Contains(string(text), string(a.Head().Note)) || !strings.Contains(string(text), string(b.Head().Note)) {
					t.Errorf("evidence %v lacks one of the notes:\n%s", err, text)
				}
				if tc.fork && fork.Evidence != files[0] {
					t.Errorf("the error names %q; want %q", fork.Evidence, files[0])
				}
			}
			if tc.fork && c.metrics.forks.Value() != 2 {
				t.Errorf("metric upkeep_tlog_forks_total is %v; want 2", c.metrics.forks.Value())
			}
			if head, _ := c.Head(); head.Size != int64(tc.a) {
				t.Errorf("the client moved to a tree of %d records", head.Size)
			}
			// Honest again: following goes on from the good head.
			sw.set(a.Handler(nil))
			fill(t, a, tc.a, tc.a+100)
			if head, err := c.Update(t.Context()); err != nil || head.Size != int64(tc.a+100) {
				t.Errorf("honest again: %d, %v", head.Size, err)
			}
		})
	}
}

func TestClientStale(t *testing.T) {
	signer, verifier := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	srv := serveLog(t, l)
	// A second server that lags behind, with all tiles of the first.
	var old []byte
	lagging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/latest" {
			w.Write(old)
			return
		}
		l.Handler(nil).ServeHTTP(w, r)
	}))
	defer lagging.Close()
	fill(t, l, 0, 300)
	old = l.Head().Note
	fill(t, l, 300, 900)
	dir := t.TempDir()
	c := newTestClient(t, verifier, srv.URL, dir)
	if _, err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Proven by tiles.
	c = newTestClient(t, verifier, lagging.URL, dir)
	if head, err := c.Update(t.Context()); !errors.Is(err, ErrStale) || head.Size != 900 {
		t.Errorf("older head: %d, %v; want ErrStale and the kept head of 900", head.Size, err)
	}
	// A lookup whose answer carries the older head is fine.
	cached := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/lookup/") {
			msg, _ := ct.FormatRecord(7, entry(7).Text)
			w.Write(append(msg, old...))
			return
		}
		l.Handler(nil).ServeHTTP(w, r)
	}))
	defer cached.Close()
	c = newTestClient(t, verifier, cached.URL, dir)
	if rec, err := c.Lookup(t.Context(), "x"); err != nil || rec.Head.Size != 900 || rec.ID != 7 {
		t.Errorf("lookup with an older head: %+v, %v", rec, err)
	}
	// Known without tiles: the head was accepted before.
	dir = t.TempDir()
	c = newTestClient(t, verifier, lagging.URL, dir)
	if _, err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = newTestClient(t, verifier, srv.URL, dir)
	if _, err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	only := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/latest" {
			http.NotFound(w, r)
			return
		}
		w.Write(old)
	}))
	defer only.Close()
	c = newTestClient(t, verifier, only.URL, dir)
	if _, err := c.Update(t.Context()); !errors.Is(err, ErrStale) {
		t.Errorf("head accepted before, no tiles: %v; want ErrStale", err)
	}
}

func TestClientLies(t *testing.T) {
	signer, verifier := newKey(t)
	_, otherKey := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	fill(t, l, 0, 1000)
	honest := l.Handler(nil)
	change := func(match string, f func([]byte) []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, match) {
				honest.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			honest.ServeHTTP(rec, r)
			w.Write(f(rec.Body.Bytes()))
		})
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b = append([]byte{}, b...); b[at] ^= 1; return b }
	}
	for _, tc := range []struct {
		name string
		h    http.Handler
		key  string
		want string
	}{
		{"honest", honest, verifier, ""},
		{"wrong key", honest, otherKey, "not signed"},
		{"changed signature", change("/latest", func(b []byte) []byte { return flip(len(b) - 10)(b) }), verifier, "not signed"},
		{"changed record", change("/lookup/", flip(20)), verifier, "not what the log holds"},
		{"changed record number", change("/lookup/", func(b []byte) []byte { return append([]byte("999"), b...) }), verifier, "covers 1000 records"},
		{"huge answer", change("/latest", func(b []byte) []byte { return make([]byte, maxNote+1) }), verifier, "larger than allowed"},
		{"changed tile", change("/tile/8/0/", flip(5)), verifier, "don't match the signed tree head"},
		{"short tile", change("/tile/8/0/", func(b []byte) []byte { return b[:31] }), verifier, "bytes long"},
		{"no note", change("/lookup/", func([]byte) []byte { return []byte("1\nx\n\n") }), verifier, "not signed"},
		{"no record", change("/lookup/", func([]byte) []byte { return nil }), verifier, "malformed record"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(tc.h)
			defer srv.Close()
			c := newTestClient(t, tc.key, srv.URL, t.TempDir())
			_, err := c.Update(t.Context())
			if err == nil {
				_, err = c.Lookup(t.Context(), entry(2).Key)
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v; want %q", err, tc.want)
			}
		})
	}
}

func TestClientDamagedState(t *testing.T) {
	signer, verifier := newKey(t)
	for _, tc := range []struct {
		name      string
		head, old string // content, "" keeps
		want      int64
	}{
		{"newest cut", "upkeep tree head v1\nacc", "", 300},
		{"newest empty", "\x00", "", 300},
		{"newest too long", strings.Repeat("x", maxState+1), "", 300},
		{"both", "x", "y", -1},
	} {
		dir := t.TempDir()
		l := openTestLog(t, t.TempDir(), signer)
		srv := serveLog(t, l)
		for _, n := range []int{300, 600} {
			fill(t, l, int(l.Head().Size), n)
			if _, err := newTestClient(t, verifier, srv.URL, dir).Update(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for suffix, content := range map[string]string{".head": tc.head, ".head.previous": tc.old} {
			if content == "" {
				continue
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
			if len(files) != 1 {
				t.Fatalf("%s: %v", suffix, files)
			}
			if err := os.WriteFile(files[0], []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c := newTestClient(t, verifier, srv.URL, dir)
		if head, ok := c.Head(); ok != (tc.want >= 0) || ok && head.Size != tc.want {
			t.Errorf("%s: kept head %d, %v; want %d", tc.name, head.Size, ok, tc.want)
		}
		if head, err := c.Update(t.Context()); err != nil || head.Size != 600 {
			t.Errorf("%s: Update: %d, %v", tc.name, head.Size, err)
		}
		if head, ok := newTestClient(t, verifier, srv.URL, dir).Head(); !ok || head.Size != 600 {
			t.Errorf("%s: after repair: %d, %v", tc.name, head.Size, ok)
		}
	}
}

// What a process has accepted it does not forget with its files.
func TestClientLosesState(t *testing.T) {
	a, b, verifier := twoHistories(t, 300)
	fill(t, a, 300, 400)
	var sw switcher
	srv := httptest.NewServer(&sw)
	defer srv.Close()
	dir := t.TempDir()
	c := newTestClient(t, verifier, srv.URL, dir)
	sw.set(a.Handler(nil))
	if _, err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.head*"))
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Append(t.Context(), Entry{"x@v1.0.0", []byte("other\n")}); err != nil {
		t.Fatal(err)
	}
	fill(t, b, 301, 500)
	sw.set(b.Handler(nil))
	var fork *ForkError
	if head, err := c.Update(t.Context()); !errors.As(err, &fork) {
		t.Fatalf("a fork after the files were removed: %d, %v; want a fork", head.Size, err)
	}
	sw.set(a.Handler(nil))
	fill(t, a, 400, 600)
	if head, err := c.Update(t.Context()); err != nil || head.Size != 600 {
		t.Fatalf("honest again: %d, %v", head.Size, err)
	}
	if head, ok := newTestClient(t, verifier, srv.URL, dir).Head(); !ok || head.Size != 600 {
		t.Fatalf("what is kept: %d, %v; want 600", head.Size, ok)
	}
}

// A server that often lags behind leaves room for the evidence of a fork, and what
// is not written is not claimed to be.
func TestEvidenceBounds(t *testing.T) {
	_, verifier := newKey(t)
	c := newTestClient(t, verifier, "http://127.0.0.1:1", t.TempDir())
	head := func(n int) TreeHead { return TreeHead{Size: int64(n), Note: fmt.Appendf(nil, "note %d\n", n)} }
	for _, kind := range []string{evidenceShrunk, evidenceFork} {
		for n := range maxEvidence + 2 {
			name := c.state.evidence(kind, "why", head(1000), head(n))
			if (name != "") != (n < maxEvidence) {
				t.Fatalf("%s %d is in %q", kind, n, name)
			}
		}
	}
	if name := c.state.evidence(evidenceFork, "why", head(1000), head(0)); name == "" {
		t.Fatal("evidence that was kept is not found again")
	}
}

func TestClientsShareAFolder(t *testing.T) {
	signer, verifier := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	url, dir := serveLog(t, l).URL, t.TempDir()
	done := make(chan error, 4)
	fill(t, l, 0, 1)
	for range cap(done) {
		c := newTestClient(t, verifier, url, dir)
		go func() {
			for range 25 {
				if _, err := c.Update(t.Context()); err != nil && !errors.Is(err, ErrStale) {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for i := 1; i < 60; i++ {
		fill(t, l, i, i+1)
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestOpenHead(t *testing.T) {
	s, v, err := openSignerVerifier(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		text string
		ok   bool
	}{
		{fmt.Sprintf("go.sum database tree\n0\n%s\n", emptyHash), true},
		{fmt.Sprintf("go.sum database tree\n0\n%s\n", ct.Hash{}), false},
		{fmt.Sprintf("go.sum database tree\n-1\n%s\n", emptyHash), false},
		{"something else\n1\nAAAA\n", false},
	} {
		msg, err := note.Sign(&note.Note{Text: tc.text}, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openHead(msg, v); (err == nil) != tc.ok {
			t.Errorf("%q: %v; want success %v", tc.text, err, tc.ok)
		}
	}
}

func openSignerVerifier(signer, verifier string) (note.Signer, note.Verifier, error) {
	s, err := note.NewSigner(signer)
	if err != nil {
		return nil, nil, err
	}
	v, err := note.NewVerifier(verifier)
	return s, v, err
}
