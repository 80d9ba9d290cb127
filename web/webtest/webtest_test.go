package webtest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// The rules find what is wrong with a page, also behind a strict policy.
func TestAxeFinds(t *testing.T) {
	tab := New(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		_, _ = w.Write([]byte(`<!DOCTYPE html><html><title>t</title><main><h1>h</h1><img src="x"><input></main>`))
	}))
	defer srv.Close()
	tab.Go(srv.URL)
	found := strings.Join(tab.Axe(), "\n")
	for _, rule := range []string{"image-alt", "label", "html-has-lang"} {
		if !strings.Contains(found, rule) {
			t.Errorf("%s was not found in:\n%s", rule, found)
		}
	}
}
