package goproxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.org/upkeep/internal/httpget"
)

func serve(t *testing.T, files map[string]string) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := files[r.URL.Path]
		switch {
		case !ok:
			http.Error(w, "not found: no such module", http.StatusNotFound)
		case body == "500":
			http.Error(w, "broken", http.StatusInternalServerError)
		default:
			w.Write([]byte(body))
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestClient(t *testing.T) {
	srv := serve(t, map[string]string{
		"/example.org/!hello/@v/list":         "v1.0.0\nv1.0.1 2024-01-01T00:00:00Z\nnonsense\nv2.0.0\n\n",
		"/example.org/!hello/@latest":         `{"Version":"v1.0.1","Time":"2024-01-02T03:04:05Z"}`,
		"/example.org/!hello/@v/v1.0.1.info":  `{"Version":"v9.9.9/../x","Time":"2024-01-02T03:04:05Z"}`,
		"/example.org/!hello/@v/v1.0.1.mod":   "module example.org/Hello\n",
		"/example.org/!hello/@v/v1.0.1.zip":   "0123456789",
		"/sumdb/db.example.org/supported":     "",
		"/broken.example.org/mod/@v/list":     "500",
		"/sumdb/broken.example.org/supported": "500",
	})
	c, err := New(srv.URL+",direct", srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()

	// v2.0.0 is not a version of a path without /v2, and nonsense is none at all.
	if got, err := c.List(ctx, "example.org/Hello"); err != nil || strings.Join(got, " ") != "v1.0.0 v1.0.1" {
		t.Errorf("List: %q, %v", got, err)
	}
	if got, err := c.Latest(ctx, "example.org/Hello"); err != nil || got.Version != "v1.0.1" || got.Time.Unix() != 1704164645 {
		t.Errorf("Latest: %v, %v", got, err)
	}
	if _, err := c.Info(ctx, "example.org/Hello", "v1.0.1"); err == nil || !strings.Contains(err.Error(), "none of this module") {
		t.Errorf("Info with a foreign version: %v", err)
	}
	if got, err := c.GoMod(ctx, "example.org/Hello", "v1.0.1"); err != nil || string(got) != "module example.org/Hello\n" {
		t.Errorf("GoMod: %q, %v", got, err)
	}
	var b bytes.Buffer
	if err := c.Zip(ctx, "example.org/Hello", "v1.0.1", &b, 10); err != nil || b.String() != "0123456789" {
		t.Errorf("Zip: %q, %v", b.String(), err)
	}
	if err := c.Zip(ctx, "example.org/Hello", "v1.0.1", &b, 9); !errors.Is(err, httpget.ErrTooLarge) {
		t.Errorf("Zip one byte too long: %v", err)
	}
	_, err = c.List(ctx, "example.org/other")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "example.org/other not found at the module proxy "+srv.URL) {
		t.Errorf("missing module: %v", err)
	}
	if _, err := c.List(ctx, "broken.example.org/mod"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("broken proxy: %v; want an error that is not ErrNotFound", err)
	}
	if got, err := c.SumDBURL(ctx, SumDB{Name: "db.example.org", URL: "x"}); err != nil || got != srv.URL+"/sumdb/db.example.org" {
		t.Errorf("SumDBURL, carried: %q, %v", got, err)
	}
	if got, err := c.SumDBURL(ctx, SumDB{Name: "other.example.org", URL: "x"}); err != nil || got != "x" {
		t.Errorf("SumDBURL, not carried: %q, %v", got, err)
	}
	if got, err := c.SumDBURL(ctx, SumDB{Name: "broken.example.org", URL: "x"}); err == nil {
		t.Errorf("SumDBURL, proxy broken: %q; want an error", got)
	}
}

// Errors go to logs and pages: no password of a proxy is in them.
func TestPassword(t *testing.T) {
	srv := serve(t, map[string]string{"/broken.example.org/mod/@v/list": "500"})
	withPassword := strings.Replace(srv.URL, "://", "://user:hunter2@", 1)
	c, err := New(withPassword, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	_, missing := c.List(t.Context(), "example.org/none")
	_, broken := c.List(t.Context(), "broken.example.org/mod")
	_, wrong := New("ftp://user:hunter2@example.org", srv.Client())
	for _, text := range []string{fmt.Sprint(missing), fmt.Sprint(broken), fmt.Sprint(wrong), c.String()} {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "user:xxxxx@") {
			t.Errorf("shown: %s", text)
		}
	}
}

func TestFallback(t *testing.T) {
	empty := serve(t, nil)
	broken := serve(t, map[string]string{"/example.org/m/@v/list": "500"})
	good := serve(t, map[string]string{"/example.org/m/@v/list": "v1.0.0\n"})
	for _, tc := range []struct {
		list string
		ok   bool
	}{
		{empty.URL + "," + good.URL, true},
		{broken.URL + "," + good.URL, false},
		{broken.URL + "|" + good.URL, true},
		{"off," + good.URL, false},
		{"direct", false},
		{"ftp://example.org", false},
	} {
		c, err := New(tc.list, http.DefaultClient)
		if err == nil {
			_, err = c.List(t.Context(), "example.org/m")
		}
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v; want success %v", tc.list, err, tc.ok)
		}
	}
}

func TestParseSumDB(t *testing.T) {
	for _, tc := range []struct{ in, name, url, err string }{
		{"sum.golang.org", "sum.golang.org", "https://sum.golang.org", ""},
		{publicSumDBKey + " http://localhost:1/x/", "sum.golang.org", "http://localhost:1/x", ""},
		{"off", "", "", "does not run without"},
		{"", "", "", "does not run without"},
		{"db.example.org", "", "", "neither"},
		{"sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", "", "", "neither"},
		{"a b c", "", "", "more than"},
	} {
		got, err := ParseSumDB(tc.in)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: %v; want %q", tc.in, err, tc.err)
			}
			continue
		}
		if err != nil || got.Name != tc.name || got.URL != tc.url {
			t.Errorf("%q: %+v, %v", tc.in, got, err)
		}
	}
}

func TestFromEnv(t *testing.T) {
	t.Setenv("GOPROXY", "http://localhost:1")
	t.Setenv("GOSUMDB", "db")
	e, err := FromEnv(t.Context())
	if err != nil || e.GOPROXY != "http://localhost:1" || e.GOSUMDB != "db" {
		t.Fatalf("%+v, %v", e, err)
	}
	t.Setenv("GOPROXY", "")
	t.Setenv("PATH", "")
	if _, err := FromEnv(t.Context()); !errors.Is(err, ErrNoProxy) {
		t.Fatalf("without GOPROXY and go: %v; want ErrNoProxy", err)
	}
}
