package follow

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

const hash = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

func entry(path, version string) tlog.Entry {
	return tlog.Entry{Key: path + "@" + version, Text: fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", path, version, hash, path, version, hash)}
}

// A growing log is followed until the index answers with its newest version.
func TestRun(t *testing.T) {
	signer, verifier, err := tlog.GenerateKey("db.example.org")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := httptest.NewServer(l.Handler(nil))
	defer srv.Close()
	dir := t.TempDir()
	c, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: srv.URL, Dir: dir, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	store, err := index.Open(filepath.Join(dir, "index.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	done := make(chan error, 1)
	go func() { done <- Run(ctx, Config{Log: c, Store: store, Interval: MinInterval}) }()
	for i, n := range []int{1, 3, 300, 1} {
		for j := range n {
			if _, err := l.Append(ctx, entry("example.org/hello", fmt.Sprintf("v1.%d.%d", i, j))); err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Sprintf("v1.%d.%d", i, n-1)
		for {
			changed := store.Changed()
			m, ok, err := store.Module("example.org/hello")
			if err != nil {
				t.Fatal(err)
			}
			if ok && m.Majors[0].Version == want {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("the index still has %v; want %s", m, want)
			}
		}
	}
	head, err := store.Head()
	if err != nil || head.Size != l.Head().Size || head.Hash != l.Head().Hash {
		t.Errorf("the index is at %+v, %v; the log at %d %v", head, err, l.Head().Size, l.Head().Hash)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		interval time.Duration
		failures int
		want     time.Duration
	}{
		{time.Minute, 1, time.Minute},
		{time.Minute, 3, 4 * time.Minute},
		{time.Minute, 100, maxBackoff},
		{200 * time.Millisecond, 100, 6400 * time.Millisecond},
		{time.Hour, 100, time.Hour},
	} {
		if got := backoff(tc.interval, tc.failures); got != tc.want {
			t.Errorf("backoff(%v, %d) = %v; want %v", tc.interval, tc.failures, got, tc.want)
		}
	}
	if a, b := jitter(time.Minute, 0), jitter(time.Minute, 1); a != 54*time.Second || b != 66*time.Second {
		t.Errorf("jitter goes from %v to %v", a, b)
	}
}

func TestBar(t *testing.T) {
	got := bar(Progress{Done: 250, Target: 1000, Rate: 50, Left: 15 * time.Second}, 8)
	if got != "[##......]  25.0 %  250 of 1000 records, 50 a second, 15s left" {
		t.Errorf("bar is %q", got)
	}
	var b strings.Builder
	Bar(&b)(Progress{Done: 1, Target: 1, Finished: true})
	if !strings.HasSuffix(b.String(), "\n") {
		t.Errorf("a finished bar ends in %q", b.String())
	}
}
