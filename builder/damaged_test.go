package builder

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// A damaged binary is not compressed and served: it is removed and built again.
// fsck finds each damaged form.
func TestDamagedBinary(t *testing.T) {
	e, rec := hello(t)
	ts := start(t, e, testOptions{})
	if _, err := ts.lookup(t, rec.Spec.String()); err != nil {
		t.Fatal(err)
	}
	res, err := ts.Result(rec.Spec)
	if err != nil {
		t.Fatal(err)
	}
	ts.stop() // which waits for the compressed form
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key})
	url := res.URL() + rec.FileName()
	if resp, _ := ts.get(t, "GET", url, "Accept-Encoding", "zstd"); resp.StatusCode != 200 || resp.Header.Get("Content-Encoding") != "zstd" {
		t.Fatalf("%d %q", resp.StatusCode, resp.Header)
	}
	check := func() (names []string) {
		t.Helper()
		n, err := CheckBinaries(t.Context(), filepath.Join(ts.dir, "blobs"), func(s string) { names = append(names, s) })
		if n != 1 || err != nil {
			t.Fatal(n, err)
		}
		return names
	}
	if got := check(); len(got) != 0 {
		t.Fatalf("whole: %q", got)
	}
	for _, f := range []form{gzipped, zstded, plain} {
		name := ts.blobs.path(res.SHA256, f)
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		good := slices.Clone(data)
		data[len(data)/2] ^= 1
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := check(); len(got) != 1 {
			t.Errorf("form %q: %q", f, got)
		}
		if f == plain {
			continue // stays damaged
		}
		if err := os.WriteFile(name, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []form{gzipped, zstded} {
		if err := os.Remove(ts.blobs.path(res.SHA256, f)); err != nil {
			t.Fatal(err)
		}
	}
	if resp, body := ts.get(t, "GET", url, "Accept-Encoding", "gzip"); resp.StatusCode != 500 {
		t.Errorf("damaged: %d, %d bytes", resp.StatusCode, len(body))
	}
	resp, body := ts.get(t, "GET", url, "Accept-Encoding", "identity")
	d := spec.NewDigest()
	d.Write(body)
	if resp.StatusCode != 200 || d.Sum() != rec.Sum {
		t.Errorf("built again: %d, %d bytes, sum %s instead of %s", resp.StatusCode, len(body), d.Sum(), rec.Sum)
	}
}

// A removed binary is built again without verifiers, which agreed before; who
// agreed stays known.
func TestBuiltAgainWithoutVerifiers(t *testing.T) {
	e, rec := hello(t)
	ts := start(t, e, testOptions{})
	if _, err := ts.lookup(t, rec.Spec.String()); err != nil {
		t.Fatal(err)
	}
	res, err := ts.Result(rec.Spec)
	if err != nil {
		t.Fatal(err)
	}
	ts.stop()
	_, verifier, err := tlog.GenerateKey("peer.test")
	if err != nil {
		t.Fatal(err)
	}
	res.Agreed = []Agreement{{Name: "peer.test", Key: verifier, Sum: res.Sum, LogID: 17}}
	if err := ts.results.saveResult(res); err != nil {
		t.Fatal(err)
	}
	for _, f := range []form{plain, gzipped} {
		if err := os.Remove(ts.blobs.path(res.SHA256, f)); err != nil {
			t.Fatal(err)
		}
	}
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, change: func(c *Config) {
		c.Verifiers, c.Require, c.Tries = []Verifier{{Key: verifier, URL: "http://127.0.0.1:1/tlog"}}, 1, 1
	}})
	resp, body := ts.get(t, "GET", res.URL()+rec.FileName(), "Accept-Encoding", "identity")
	if resp.StatusCode != 200 || int64(len(body)) != rec.Size {
		t.Errorf("built again: %d %.200s", resp.StatusCode, body)
	}
	if got, err := ts.Result(rec.Spec); err != nil || !slices.Equal(got.Agreed, res.Agreed) || len(got.Pending) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
