package tlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb"
	ct "golang.org/x/mod/sumdb/tlog"
)

func newKey(t testing.TB) (signer, verifier string) {
	t.Helper()
	s, v, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func openTestLog(t testing.TB, dir, signer string) *Log {
	t.Helper()
	l, err := OpenLog(dir, signer, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func entry(i int) Entry {
	m := fmt.Sprintf("example.org/m%d", i)
	return Entry{m + "@v1.0.0", fmt.Appendf(nil, "%s v1.0.0 h1:AAAA%d=\n%s v1.0.0/go.mod h1:BBBB%d=\n", m, i, m, i)}
}

func fill(t testing.TB, l *Log, from, to int) {
	t.Helper()
	var es []Entry
	for i := from; i < to; i++ {
		es = append(es, entry(i))
	}
	if id, err := l.Append(t.Context(), es...); err != nil || id != int64(from) {
		t.Fatalf("Append: %d, %v; want %d", id, err, from)
	}
}

func serveLog(t testing.TB, l *Log) *httptest.Server {
	srv := httptest.NewServer(l.Handler(nil))
	t.Cleanup(srv.Close)
	return srv
}

func newTestClient(t testing.TB, key, url, dir string) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Key: key, URL: url, Dir: dir, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sumdbOps lets the go command's own client read our server.
type sumdbOps struct {
	t    *testing.T
	base string
	mu   sync.Mutex
	conf map[string][]byte
}

func (o *sumdbOps) ReadRemote(path string) ([]byte, error) {
	resp, err := http.Get(o.base + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func (o *sumdbOps) ReadConfig(file string) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conf[file], nil
}

func (o *sumdbOps) WriteConfig(file string, old, new []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conf[file] = new
	return nil
}
func (o *sumdbOps) ReadCache(string) ([]byte, error) { return nil, errors.New("none") }
func (o *sumdbOps) WriteCache(string, []byte)        {}
func (o *sumdbOps) Log(msg string)                   { o.t.Log(msg) }
func (o *sumdbOps) SecurityError(msg string)         { o.t.Error(msg) }

func TestLogServesTheGoCommandsClient(t *testing.T) {
	signer, verifier := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	srv := serveLog(t, l)
	ops := &sumdbOps{t: t, base: srv.URL, conf: map[string][]byte{"key": []byte(verifier), "log.example.org/latest": nil}}
	size := 0
	for _, next := range []int{1, 3, 255, 256, 257, 511, 700, 1500} {
		fill(t, l, size, next)
		size = next
		// A client that remembers the last tree head proves consistency too.
		c := sumdb.NewClient(ops)
		for _, i := range []int{0, size / 2, size - 1} {
			lines, err := c.Lookup(fmt.Sprintf("example.org/m%d", i), "v1.0.0")
			if err != nil || len(lines) != 1 || lines[0]+"\n" != strings.SplitAfter(string(entry(i).Text), "\n")[0] {
				t.Fatalf("at size %d: %q, %v", size, lines, err)
			}
		}
	}
	if !strings.Contains(string(ops.conf["log.example.org/latest"]), "\n1500\n") {
		t.Errorf("the client kept %q", ops.conf["log.example.org/latest"])
	}
}

func TestLogAppend(t *testing.T) {
	signer, _ := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	ctx := t.Context()
	fill(t, l, 0, 3)
	if id, err := l.Append(ctx, entry(1)); id != 1 || err != nil {
		t.Errorf("same entry again: %d, %v; want 1", id, err)
	}
	other := entry(1)
	other.Text = []byte("something else\n")
	if _, err := l.Append(ctx, entry(7), other); !errors.Is(err, ErrKeyExists) {
		t.Errorf("other text: %v; want ErrKeyExists", err)
	}
	if _, ok := l.Find(entry(7).Key); ok {
		t.Error("part of a refused append is in the log")
	}
	if _, err := l.Append(ctx, Entry{"k", []byte("a\n")}, Entry{"k", []byte("b\n")}); !errors.Is(err, ErrKeyExists) {
		t.Errorf("two texts for a key in one append: %v; want ErrKeyExists", err)
	}
	for _, text := range []string{"", "no newline", "a\n\nb\n", "\n", "a\x01\n", "a\xff\n"} {
		if _, err := l.Append(ctx, Entry{"x", []byte(text)}); err == nil {
			t.Errorf("text %q was accepted", text)
		}
	}
	if h := l.Head(); h.Size != 3 {
		t.Errorf("the log has %d records; want 3", h.Size)
	}
	if text, err := l.Record(2); err != nil || string(text) != string(entry(2).Text) {
		t.Errorf("Record(2): %q, %v", text, err)
	}
	if _, err := l.Record(3); !errors.Is(err, ErrNotFound) {
		t.Errorf("Record(3): %v", err)
	}
	if _, ok := l.Find(""); ok {
		t.Error("the empty key was found")
	}
}

func TestLogReopen(t *testing.T) {
	signer, verifier := newKey(t)
	dir := t.TempDir()
	l := openTestLog(t, dir, signer)
	fill(t, l, 0, 600)
	want := l.Head()
	if _, err := OpenLog(dir, signer, LogOptions{}); err == nil {
		t.Fatal("a log was opened twice")
	}
	l.Close()
	if _, err := l.Append(t.Context(), entry(1)); err == nil {
		t.Error("a closed log took an append")
	}

	damage := map[string]func(){
		"nothing":      func() {},
		"torn append":  func() { appendTo(t, filepath.Join(dir, "records"), "\x20\x00\x00\x00half") },
		"missing tile": func() { os.Remove(filepath.Join(dir, "tile/8/data/000")) },
		"damaged tile": func() { os.WriteFile(filepath.Join(dir, "tile/8/0/001"), make([]byte, 8192), 0o644) },
	}
	for name, do := range damage {
		do()
		l := openTestLog(t, dir, signer)
		if h := l.Head(); h.Size != want.Size || h.Hash != want.Hash {
			t.Errorf("%s: reopened at %d %v; want %d %v", name, h.Size, h.Hash, want.Size, want.Hash)
		}
		c := newTestClient(t, verifier, serveLog(t, l).URL, t.TempDir())
		for _, i := range []int{0, 300, 599} {
			if rec, err := c.Lookup(t.Context(), entry(i).Key); err != nil || string(rec.Data) != string(entry(i).Text) {
				t.Errorf("%s: lookup %d: %v", name, i, err)
			}
		}
		l.Close()
	}

	// A crash between records and tree head: the record comes under the next tree head.
	appendTo(t, filepath.Join(dir, "records"), string(appendFrame(nil, entry(600))))
	l = openTestLog(t, dir, signer)
	if id, ok := l.Find(entry(600).Key); !ok || id != 600 || l.Head().Size != 601 {
		t.Errorf("record without tree head: %d, %v, size %d", id, ok, l.Head().Size)
	}
	l.Close()

	// Lost or changed records under a tree head are refused.
	b, err := os.ReadFile(filepath.Join(dir, "records"))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "records"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(dir, signer, LogOptions{}); err == nil || !strings.Contains(err.Error(), "don't match the signed tree head") {
		t.Errorf("flipped bit: %v; want a refusal", err)
	}
	other, _ := newKey(t)
	if _, err := OpenLog(dir, other, LogOptions{}); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v; want ErrSignature", err)
	}
}

func appendTo(t *testing.T, name, data string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
}

type statusError int

func (e statusError) Error() string   { return "no" }
func (e statusError) HTTPStatus() int { return int(e) }

func TestLogMiss(t *testing.T) {
	signer, verifier := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	srv := httptest.NewServer(l.Handler(func(ctx context.Context, key string) error {
		switch key {
		case "a b/":
			_, err := l.Append(ctx, Entry{key, []byte("made on demand\n")})
			return err
		case "bad":
			return fmt.Errorf("wrapped: %w", statusError(404))
		}
		return errors.New("broken")
	}))
	defer srv.Close()
	c := newTestClient(t, verifier, srv.URL, t.TempDir())
	rec, err := c.Lookup(t.Context(), "a%20b/")
	if err != nil || string(rec.Data) != "made on demand\n" || rec.ID != 0 {
		t.Errorf("made on demand: %q, %v", rec.Data, err)
	}
	if _, err := c.Lookup(t.Context(), "bad"); !errors.Is(err, ErrNotFound) {
		t.Errorf("bad: %v; want ErrNotFound", err)
	}
	if _, err := c.Lookup(t.Context(), "other"); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "500") {
		t.Errorf("other: %v; want the server's 500", err)
	}
}

func TestLogTilesOutsideTheTree(t *testing.T) {
	signer, _ := newKey(t)
	l := openTestLog(t, t.TempDir(), signer)
	fill(t, l, 0, 300)
	for _, tc := range []struct {
		t  ct.Tile
		ok bool
	}{
		{ct.Tile{H: 8, L: 0, N: 0, W: 256}, true},
		{ct.Tile{H: 8, L: 0, N: 0, W: 7}, true},
		{ct.Tile{H: 8, L: -1, N: 0, W: 7}, true},
		{ct.Tile{H: 8, L: 0, N: 1, W: 44}, true},
		{ct.Tile{H: 8, L: -1, N: 1, W: 43}, true},
		{ct.Tile{H: 8, L: 0, N: 1, W: 45}, false},
		{ct.Tile{H: 8, L: 0, N: 1, W: 256}, false},
		{ct.Tile{H: 8, L: 1, N: 0, W: 1}, true},
		{ct.Tile{H: 8, L: 1, N: 0, W: 2}, false},
		{ct.Tile{H: 8, L: 2, N: 0, W: 1}, false},
		{ct.Tile{H: 8, L: 63, N: 0, W: 1}, false},
		{ct.Tile{H: 8, L: 0, N: 1 << 60, W: 1}, false},
		{ct.Tile{H: 7, L: 0, N: 0, W: 1}, false},
	} {
		if _, err := l.Tile(tc.t); (err == nil) != tc.ok {
			t.Errorf("%s: %v; want success %v", tc.t.Path(), err, tc.ok)
		}
	}
}

// BenchmarkLogAppend: many appenders at once must reach 1000 durable appends a second.
func BenchmarkLogAppend(b *testing.B) {
	signer, _ := newKey(b)
	l := openTestLog(b, b.TempDir(), signer)
	var n sync.Mutex
	i := 0
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n.Lock()
			e := entry(i)
			i++
			n.Unlock()
			if _, err := l.Append(b.Context(), e); err != nil {
				b.Error(err)
			}
		}
	})
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "appends/s")
	b.ReportMetric(rate/1000, "x-limit")
}
