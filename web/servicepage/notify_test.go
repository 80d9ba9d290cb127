package servicepage

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/login"
)

// A webhook's requests are merged, limited, and need a token.
func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "access.json")
		var a login.Access
		if err := a.SetUser("admin", "a long password"); err != nil {
			t.Fatal(err)
		}
		tokens := map[login.Scope]string{}
		for _, scope := range login.Scopes {
			var err error
			if tokens[scope], err = a.AddToken("t-"+string(scope), scope, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Write(file); err != nil {
			t.Fatal(err)
		}
		gate, err := login.New(login.Config{File: file, Program: "upkeep"})
		if err != nil {
			t.Fatal(err)
		}
		f := &fake{}
		h := New(Config{Login: gate, Security: web.Security{}}, f)
		send := func(method, token string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "http://localhost:8300/notify", strings.NewReader("whatever a forge says"))
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		looks := func(want int) {
			t.Helper()
			synctest.Wait()
			got := f.done()
			if len(got) != want {
				t.Fatalf("%d looks, want %d: %+v", len(got), want, got)
			}
			for _, a := range got {
				if a.Verb != supervisor.VerbCheck || a.By != "t-notify" && a.By != "t-act" {
					t.Errorf("action %+v", a)
				}
			}
		}
		for _, tc := range []struct {
			method, token string
			code          int
		}{
			{"POST", "", http.StatusUnauthorized},
			{"POST", "upkeep_wrong", http.StatusUnauthorized},
			{"POST", tokens[login.ScopeRead], http.StatusForbidden},
			{"POST", tokens[login.ScopeMetrics], http.StatusForbidden},
			{"GET", tokens[login.ScopeNotify], http.StatusForbidden},
		} {
			if w := send(tc.method, tc.token); w.Code != tc.code || !strings.Contains(w.Body.String(), `"error"`) && w.Code == http.StatusUnauthorized {
				t.Errorf("%s with %.12q: %d %s; want %d", tc.method, tc.token, w.Code, w.Body, tc.code)
			}
		}
		looks(0)
		// A token for this is good for nothing else.
		for _, path := range []string{"/", "/api/v1/status", "/metrics"} {
			r := httptest.NewRequest("GET", "http://localhost:8300"+path, nil)
			r.Header.Set("Authorization", "Bearer "+tokens[login.ScopeNotify])
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusForbidden {
				t.Errorf("%s: %d", path, w.Code)
			}
		}

		says := func(w *httptest.ResponseRecorder, seconds int) {
			t.Helper()
			if want := fmt.Sprintf(`"looks_in_seconds": %d`, seconds); w.Code != http.StatusAccepted || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%d %s; want %s", w.Code, w.Body, want)
			}
		}
		says(send("POST", tokens[login.ScopeNotify]), 0)
		looks(1)
		time.Sleep(20 * time.Second)
		for range 5 {
			says(send("POST", tokens[login.ScopeAct]), 40)
		}
		looks(1)
		time.Sleep(40 * time.Second)
		looks(2)
		says(send("POST", tokens[login.ScopeNotify]), 60)
		time.Sleep(2 * time.Minute)
		looks(3)
		// Too many in a minute are refused, and said when to come again.
		for i := range 40 {
			w := send("POST", tokens[login.ScopeNotify])
			if want := i >= maxNotices; want != (w.Code == http.StatusTooManyRequests) || want && w.Header().Get("Retry-After") != "61" {
				t.Errorf("request %d: %d, Retry-After %q", i, w.Code, w.Header().Get("Retry-After"))
			}
		}
		time.Sleep(2 * time.Minute)
		looks(5)
		f.refuse = "upkeep is stopping"
		if w := send("POST", tokens[login.ScopeNotify]); w.Code != http.StatusServiceUnavailable {
			t.Errorf("refused by the engine: %d %s", w.Code, w.Body)
		}
	})
}

// Without a login on the page nobody's token is looked at, so nobody is let in.
func TestNotifyWithoutLogin(t *testing.T) {
	f := &fake{err: errors.New("not asked")}
	w := httptest.NewRecorder()
	New(Config{}, f).ServeHTTP(w, httptest.NewRequest("POST", "http://localhost:8300/notify", nil))
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "upkeep token") || len(f.done()) != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
