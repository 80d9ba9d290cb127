package httpget

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestGet(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ten":
			w.Write([]byte("0123456789"))
		case "/busy":
			w.Header().Set("Retry-After", "7")
			http.Error(w, "come\x1b[31m back\nlater", http.StatusTooManyRequests)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()

	if got, err := Get(t.Context(), srv.Client(), srv.URL+"/ten", 10); err != nil || string(got) != "0123456789" {
		t.Fatalf("got %q, %v", got, err)
	}
	withPassword := strings.Replace(srv.URL, "://", "://user:hunter2@", 1)
	if _, err := Get(t.Context(), srv.Client(), withPassword+"/ten", 9); !errors.Is(err, ErrTooLarge) || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("one byte too long: %v; want ErrTooLarge, and no password", err)
	}
	var se *StatusError
	_, err := Get(t.Context(), srv.Client(), srv.URL+"/busy", 10)
	if !errors.As(err, &se) || !se.Temporary() || se.NotFound() || se.RetryAfter != 7*time.Second || se.Text != "come[31m back" {
		t.Fatalf("busy: %#v", err)
	}
	_, err = Get(t.Context(), srv.Client(), srv.URL+"/x", 10)
	if !errors.As(err, &se) || !se.NotFound() || se.Temporary() {
		t.Fatalf("missing: %#v", err)
	}
}

func TestLine(t *testing.T) {
	if got := Line(strings.Repeat("é", 10), 5); got != "éé…" {
		t.Fatalf("got %q", got)
	}
}
