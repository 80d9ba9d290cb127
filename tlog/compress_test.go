package tlog

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"":                          false,
		"gzip":                      true,
		"identity":                  false,
		"deflate, GZIP;q=0.5, br":   true,
		"gzip;q=0":                  false,
		"gzip; q=0.000, identity":   false,
		"br;q=1.0, gzip;q=0.8, *":   true,
		"gzippy, x-gzip, notgzip":   false,
		"deflate,\tgzip ; q = 0.01": true,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", header)
		if got := acceptsGzip(r); got != want {
			t.Errorf("%q: %v; want %v", header, got, want)
		}
	}
}

// A data tile is sent compressed to whoever takes that, and is the same.
func TestCompressedTile(t *testing.T) {
	signer, _, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(t.TempDir(), signer, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text := strings.Repeat("a line with much in it that comes again\n", 50)
	if _, err := l.Append(t.Context(), Entry{Key: "k", Text: []byte(text)}); err != nil {
		t.Fatal(err)
	}
	get := func(path, accept string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept-Encoding", accept)
		l.Handler(nil).ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w
	}
	const tile = "/tile/8/data/000.p/1"
	plain, small := get(tile, ""), get(tile, "gzip")
	if plain.Header().Get("Content-Encoding") != "" || small.Header().Get("Content-Encoding") != "gzip" || small.Body.Len() >= plain.Body.Len() {
		t.Fatalf("%d bytes plain, %d bytes as %q", plain.Body.Len(), small.Body.Len(), small.Header().Get("Content-Encoding"))
	}
	z, err := gzip.NewReader(small.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != plain.Body.String() {
		t.Errorf("unpacked it is %q, %v; want %q", got, err, plain.Body)
	}
	if w := get("/tile/8/0/000.p/1", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a hash tile was compressed")
	}
}
