package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"example.org/upkeep/builder/spec"
)

// What the builder says beyond the log's record is taken if it is there, and
// refused if it contradicts the record.
func TestDetails(t *testing.T) {
	s, err := spec.Parse("example.org/hello@v1.0.0/linux-amd64-go1.26.8/")
	if err != nil {
		t.Fatal(err)
	}
	sum, other := sha256.Sum256([]byte("binary")), sha256.Sum256([]byte("another"))
	rec := spec.Record{Spec: s, Size: 6, Sum: spec.Sum(sum)}
	wrong := rec
	wrong.Size++
	for _, tc := range []struct {
		name    string
		answer  func(w http.ResponseWriter)
		sha256  string
		agreed  []Agreement
		refused bool
	}{
		{"another program, which has no such page", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, "", nil, false},
		{"the record alone", func(w http.ResponseWriter) { w.Write(rec.Line()) }, "", nil, false},
		{"all", func(w http.ResponseWriter) {
			w.Header().Set("X-Upkeep-Sha256", hex.EncodeToString(sum[:]))
			w.Header().Set("X-Upkeep-Agreed", "other.example.org 977")
			w.Write(rec.Line())
		}, hex.EncodeToString(sum[:]), []Agreement{{"other.example.org", 977}}, false},
		{"another record", func(w http.ResponseWriter) { w.Write(wrong.Line()) }, "", nil, true},
		{"the hash of something else", func(w http.ResponseWriter) {
			w.Header().Set("X-Upkeep-Sha256", hex.EncodeToString(other[:]))
			w.Write(rec.Line())
		}, "", nil, true},
		{"no hash", func(w http.ResponseWriter) {
			w.Header().Set("X-Upkeep-Sha256", "abc")
			w.Write(rec.Line())
		}, "", nil, true},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if want := "/" + s.String() + rec.Sum + "/record"; r.URL.Path != want {
				t.Errorf("asked for %s; want %s", r.URL.Path, want)
			}
			tc.answer(w)
		}))
		f, p := &Fetcher{base: srv.URL, hc: srv.Client()}, Proof{Record: rec}
		err := f.details(t.Context(), &p)
		srv.Close()
		var v *VerifyError
		if errors.As(err, &v) != tc.refused || err != nil && v == nil || p.SHA256 != tc.sha256 || !reflect.DeepEqual(p.Agreed, tc.agreed) {
			t.Errorf("%s: %+v, %v", tc.name, p, err)
		}
	}
}

// The record's sum is a part of the hash; the rest of it counts too.
func TestFullHash(t *testing.T) {
	name := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(name, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("binary"))
	rec := spec.Record{Size: 6, Sum: spec.Sum(sum)}
	for _, tc := range []struct {
		flip byte
		kind string
	}{{0, BuildInfo}, {1, BadSum}} { // an honest one gets as far as the build information
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		full := sum
		full[31] ^= tc.flip
		err = checkFile(file, Proof{Record: rec, SHA256: hex.EncodeToString(full[:])})
		file.Close()
		var v *VerifyError
		if !errors.As(err, &v) || v.Kind != tc.kind {
			t.Errorf("with %d flipped in the hash's end: %v; want %s", tc.flip, err, tc.kind)
		}
	}
}

func TestParseAgreed(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []Agreement
	}{
		{"", nil},
		{"a.example.org 17, b.example.org -1", []Agreement{{"a.example.org", 17}, {"b.example.org", -1}}},
		{"a.example.org 17,,x, <b> 3,c.example.org -2, d.example.org 1 2,e.example.org 9223372036854775808", []Agreement{{"a.example.org", 17}}},
		{"build.upkeep.test/two 0", []Agreement{{"build.upkeep.test/two", 0}}},
	} {
		if got := parseAgreed(tc.text); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: %v; want %v", tc.text, got, tc.want)
		}
	}
	if got := parseAgreed(strings.Repeat("a.example.org 1,", 100)); len(got) != maxAgreed {
		t.Errorf("%d names; want at most %d", len(got), maxAgreed)
	}
}

func FuzzAgreed(f *testing.F) {
	f.Add("a.example.org 17, b.example.org -1")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range parseAgreed(text) {
			if a.Index < -1 || strings.ContainsAny(a.Name, " \n<>\"&\x00") {
				t.Errorf("%+v", a)
			}
		}
	})
}
