package tlog_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

var content = logtest.Content{Spread: 1000}

func serve(t testing.TB, c logtest.Content, size int64) (*logtest.Server, string) {
	t.Helper()
	s, err := logtest.NewServer("", c, size)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, srv.URL
}

func newClient(t testing.TB, s *logtest.Server, url string, tiles *tlog.TileDir) *tlog.Client {
	t.Helper()
	c, err := tlog.NewClient(tlog.ClientConfig{Key: s.VerifierKey(), URL: url, Dir: t.TempDir(), Tiles: tiles})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A reading collects what Follow hands on.
type reading struct {
	t    *testing.T
	c    logtest.Content
	next int64
	edge tlog.Edge
}

// read follows up to the log's tree head and checks every record.
func (r *reading) read(c *tlog.Client) error {
	r.t.Helper()
	head, err := c.Update(r.t.Context())
	if err != nil {
		return err
	}
	return r.readTo(c, head)
}

func (r *reading) readTo(c *tlog.Client, head tlog.TreeHead) error {
	return tlog.Follow(r.t.Context(), tlog.FollowConfig{Client: c, From: r.edge, To: head, Parallel: 4},
		func(t *tlog.Tile, sum *int) {
			*sum = 0
			for _, text := range t.Records {
				*sum += len(text)
			}
		},
		func(t *tlog.Tile, sum *int, after *tlog.Edge) error {
			if t.First != r.next {
				r.t.Fatalf("got records from %d; want %d", t.First, r.next)
			}
			for _, text := range t.Records {
				if want := r.c.Append(nil, r.next); !bytes.Equal(text, want) {
					r.t.Fatalf("record %d is %q; want %q", r.next, text, want)
				}
				*sum -= len(text)
				r.next++
			}
			if *sum != 0 || after.Size != r.next {
				r.t.Fatalf("tile from %d: prepared sum is off by %d, edge after it is at %d", t.First, *sum, after.Size)
			}
			r.edge = after.Clone()
			return nil
		})
}

func TestFollow(t *testing.T) {
	srv, url := serve(t, content, 0)
	r := reading{t: t, c: content}
	c := newClient(t, srv, url, nil)
	for _, size := range []int64{0, 1, 100, 255, 256, 257, 1000, 1024, 5000, 65_536, 66_000, 70_001} {
		if err := srv.SetSize(size); err != nil {
			t.Fatal(err)
		}
		if err := r.read(c); err != nil {
			t.Fatal(err)
		}
		head, _ := c.Head()
		if r.next != size || r.edge.Root() != head.Hash {
			t.Fatalf("read %d records, root %v; want %d, %v", r.next, r.edge.Root(), size, head.Hash)
		}
	}
	// In one go from the start there is one request for a data tile, and one for
	// a hash tile for every 256 of them and a few for the proof.
	all0, data0 := srv.Requests()
	r = reading{t: t, c: content}
	if err := r.read(newClient(t, srv, url, nil)); err != nil {
		t.Fatal(err)
	}
	all, data := srv.Requests()
	if data-data0 != 70_001/256+1 || all-all0-(data-data0) > 8 {
		t.Errorf("%d requests, %d of them for data tiles; want at most 8 more than the %d data tiles", all-all0, data-data0, 70_001/256+1)
	}
}

func TestFollowFaults(t *testing.T) {
	const size = 30_000
	for _, tc := range []struct {
		name   string
		faults logtest.Faults
	}{
		{"every 7th tile is answered with 500", logtest.Faults{Status: 500, Every: 7}},
		{"every 11th tile is cut short", logtest.Faults{Cut: 11}},
		{"every 13th tile has a wrong bit", logtest.Faults{Flip: 13}},
		{"partial tiles are gone", logtest.Faults{NoPartial: true, Growth: 300}},
		{"growth at each request", logtest.Faults{Growth: 77}},
		{"slow", logtest.Faults{Delay: time.Millisecond}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv, url := serve(t, content, size)
			srv.SetFaults(tc.faults)
			r := reading{t: t, c: content}
			c := newClient(t, srv, url, nil)
			for range 3 {
				if err := r.read(c); err != nil {
					t.Fatal(err)
				}
			}
			if head, _ := c.Head(); r.next != head.Size || r.next < size {
				t.Errorf("read %d records of %d", r.next, head.Size)
			}
		})
	}
}

// A server that always lies is given up on, and says which tile is wrong.
func TestFollowLies(t *testing.T) {
	for _, tc := range []struct {
		name   string
		faults logtest.Faults
		want   error
	}{
		{"wrong bit in every tile", logtest.Faults{Flip: 1}, tlog.ErrInconsistent},
		{"no data tiles", logtest.Faults{RefuseData: true}, tlog.ErrNoDataTiles},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv, url := serve(t, content, 300)
			c := newClient(t, srv, url, nil)
			if _, err := c.Update(t.Context()); err != nil {
				t.Fatal(err)
			}
			srv.SetFaults(tc.faults)
			r := reading{t: t, c: content}
			if err := r.read(c); !errors.Is(err, tc.want) {
				t.Errorf("got %v; want %v", err, tc.want)
			}
			if r.next != 0 {
				t.Errorf("%d records were handed on", r.next)
			}
		})
	}
}

// A server that lacks one tile, as a copy that is being made, is not taken for one
// that has no data tiles: nobody would ask it again.
func TestFollowLacksTile(t *testing.T) {
	for _, tc := range []struct {
		size   int64
		path   string
		status int
	}{
		{1000, "/tile/8/data/001", http.StatusNotFound},
		{1000, "/tile/8/data/002", http.StatusForbidden},
		{1000, "/tile/8/data/003.p/232", http.StatusNotFound},
		{100, "/tile/8/data/000.p/100", http.StatusNotFound},
	} {
		srv, err := logtest.NewServer("", content, tc.size)
		if err != nil {
			t.Fatal(err)
		}
		var there atomic.Bool
		hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == tc.path && !there.Load() {
				http.Error(w, "not yet", tc.status)
				return
			}
			srv.ServeHTTP(w, r)
		}))
		r := reading{t: t, c: content}
		c := newClient(t, srv, hs.URL, nil)
		if err := r.read(c); err == nil || errors.Is(err, tlog.ErrNoDataTiles) || !strings.Contains(err.Error(), tc.path[1:]) {
			t.Errorf("%s is answered %d: %v; want an error that passes and names the tile", tc.path, tc.status, err)
		}
		there.Store(true)
		if err := r.read(c); err != nil || r.next != tc.size {
			t.Errorf("%s is there: read %d records, %v", tc.path, r.next, err)
		}
		hs.Close()
	}
}

// What was read before must be the beginning of the log it goes on with.
func TestFollowAnotherHistory(t *testing.T) {
	signer, _, err := tlog.GenerateKey("db.example.org")
	if err != nil {
		t.Fatal(err)
	}
	forked := content
	forked.ForkAt = 900
	a, err := logtest.NewServer(signer, content, 1000)
	if err != nil {
		t.Fatal(err)
	}
	b, err := logtest.NewServer(signer, forked, 2000)
	if err != nil {
		t.Fatal(err)
	}
	srvA, srvB := httptest.NewServer(a), httptest.NewServer(b)
	defer srvA.Close()
	defer srvB.Close()
	r := reading{t: t, c: content}
	if err := r.read(newClient(t, a, srvA.URL, nil)); err != nil {
		t.Fatal(err)
	}
	// The state folder was lost, so only the edge knows.
	var fork *tlog.ForkError
	if err := r.read(newClient(t, b, srvB.URL, nil)); !errors.As(err, &fork) {
		t.Errorf("got %v; want a ForkError", err)
	}
	if err := b.SetSize(950); err != nil {
		t.Fatal(err)
	}
	if err := r.read(newClient(t, b, srvB.URL, nil)); !errors.Is(err, tlog.ErrShrunk) {
		t.Errorf("got %v; want ErrShrunk", err)
	}
	if r.next != 1000 {
		t.Errorf("records up to %d were handed on", r.next)
	}
}

func TestTileDir(t *testing.T) {
	const size = 20_100
	srv, url := serve(t, content, size)
	dir := t.TempDir()
	tiles, err := tlog.OpenTileDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := reading{t: t, c: content}
	c := newClient(t, srv, url, tiles)
	if err := r.read(c); err != nil {
		t.Fatal(err)
	}
	head, _ := c.Head()

	// From the kept tiles alone: the folder is a log's own layout.
	offline := func() (*tlog.Client, error) {
		c, err := tlog.NewClient(tlog.ClientConfig{Key: srv.VerifierKey(), URL: "file://" + dir, Dir: t.TempDir()})
		if err != nil {
			return nil, err
		}
		r := reading{t: t, c: content}
		if err := r.read(c); err != nil {
			return nil, err
		}
		if r.next != head.Size {
			t.Errorf("read %d records from the folder; want %d", r.next, head.Size)
		}
		return c, nil
	}
	if _, err := offline(); err != nil {
		t.Fatal(err)
	}

	// A kept tile with a wrong bit is noticed, fetched again and put right.
	name := filepath.Join(dir, "tile/8/data/033")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[1000] ^= 4
	if err := os.WriteFile(name, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := offline(); !errors.Is(err, tlog.ErrInconsistent) || !strings.Contains(err.Error(), "tile/8/data/033") {
		t.Errorf("damaged tile without a server: %v; want ErrInconsistent naming the tile", err)
	}
	_, before := srv.Requests()
	r = reading{t: t, c: content}
	if err := r.readTo(newClient(t, srv, url, tiles), head); err != nil {
		t.Fatal(err)
	}
	if _, after := srv.Requests(); after-before != 1 {
		t.Errorf("%d data tiles were fetched; want the damaged one", after-before)
	}
	if now, _ := os.ReadFile(name); !bytes.Equal(now, good) {
		t.Error("the damaged tile is still there")
	}

	// A damaged hash tile too.
	for _, name := range []string{"tile/8/1/000.p/78"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 78*32), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r = reading{t: t, c: content}
	if err := r.readTo(newClient(t, srv, url, tiles), head); err != nil {
		t.Errorf("damaged hash tile: %v", err)
	}

	// A full tile takes the place of partial ones.
	if err := srv.SetSize(size + 256); err != nil {
		t.Fatal(err)
	}
	if err := r.read(c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tile/8/data/078.p")); err == nil {
		t.Error("partial tiles of a full one are still there")
	}
}

// A folder that can't be written costs a message, not the reading.
func TestTileDirUnwritable(t *testing.T) {
	srv, url := serve(t, content, 1000)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tile"), nil, 0o644); err != nil { // a file where a folder must be
		t.Fatal(err)
	}
	tiles, err := tlog.OpenTileDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := reading{t: t, c: content}
	if err := r.read(newClient(t, srv, url, tiles)); err != nil || r.next != 1000 {
		t.Errorf("read %d records: %v", r.next, err)
	}
}

// Retry-After is obeyed, and delays grow. The clock is a false one.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		start := time.Now()
		err := tlog.Retry(t.Context(), 4, slog.Default(), func() error {
			switch tries.Add(1) {
			case 1:
				return &httpget.StatusError{Code: 429, RetryAfter: 90 * time.Second}
			case 2:
				return &httpget.StatusError{Code: 503}
			}
			return nil
		})
		if d := time.Since(start); err != nil || tries.Load() != 3 || d < 90*time.Second || d > 93*time.Second {
			t.Errorf("%d tries in %v: %v; want 3 in a little over 90s", tries.Load(), d, err)
		}
		tries.Store(0)
		err = tlog.Retry(t.Context(), 4, slog.Default(), func() error { tries.Add(1); return &httpget.StatusError{Code: 403} })
		if err == nil || tries.Load() != 1 {
			t.Errorf("a refusal was tried %d times", tries.Load())
		}
	})
}

// A server may compress, and must not make us unpack without end.
func TestCompression(t *testing.T) {
	srv, err := logtest.NewServer("", content, 2000)
	if err != nil {
		t.Fatal(err)
	}
	var bomb atomic.Bool
	var compressed atomic.Int64
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("%s was asked for with encoding %q", r.URL.Path, r.Header.Get("Accept-Encoding"))
		}
		rec := httptest.NewRecorder()
		srv.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			w.WriteHeader(rec.Code)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		compressed.Add(1)
		if bomb.Load() && strings.Contains(r.URL.Path, "/data/") {
			for range 64 {
				_, _ = z.Write(make([]byte, 1<<20))
			}
			return
		}
		_, _ = z.Write(rec.Body.Bytes())
	}))
	defer hs.Close()
	r := reading{t: t, c: content}
	if err := r.read(newClient(t, srv, hs.URL, nil)); err != nil || r.next != 2000 || compressed.Load() == 0 {
		t.Fatalf("read %d records of %d compressed answers: %v", r.next, compressed.Load(), err)
	}
	bomb.Store(true)
	r = reading{t: t, c: content}
	if err := r.read(newClient(t, srv, hs.URL, nil)); !errors.Is(err, httpget.ErrTooLarge) {
		t.Errorf("64 MB in an answer: %v; want ErrTooLarge", err)
	}
}

func TestRateLimit(t *testing.T) {
	srv, url := serve(t, content, 5000)
	c, err := tlog.NewClient(tlog.ClientConfig{Key: srv.VerifierKey(), URL: url, Dir: t.TempDir(), Limits: tlog.Limits{Requests: 40}})
	if err != nil {
		t.Fatal(err)
	}
	r := reading{t: t, c: content}
	start := time.Now()
	if err := r.read(c); err != nil {
		t.Fatal(err)
	}
	// The first 40 requests are free, the rest come 40 a second: this can only be
	// too fast, never too slow, so a busy machine does not matter.
	all, _ := srv.Requests()
	if least := time.Duration(all-41) * time.Second / 40; all > 41 && time.Since(start) < least {
		t.Errorf("%d requests took %v; want at least %v", all, time.Since(start), least)
	}
}

func TestEdge(t *testing.T) {
	var e tlog.Edge
	var stored []ct.Hash
	read := ct.HashReaderFunc(func(indexes []int64) (out []ct.Hash, err error) {
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n := range int64(600) {
		want, err := ct.TreeHash(n, read)
		if err != nil || e.Root() != want || e.Size != n {
			t.Fatalf("tree of %d: %v at size %d; want %v", n, e.Root(), e.Size, want)
		}
		b, err := e.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var back tlog.Edge
		if err := back.UnmarshalBinary(b); err != nil || back.Root() != want {
			t.Fatalf("tree of %d read back: %v, %v", n, back.Root(), err)
		}
		if err := back.UnmarshalBinary(b[:len(b)-1]); err == nil {
			t.Fatalf("tree of %d cut short was accepted", n)
		}
		record := fmt.Append(nil, n)
		hashes, err := ct.StoredHashes(n, record, read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		e.Add(ct.RecordHash(record))
	}
}
