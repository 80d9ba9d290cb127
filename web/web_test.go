package web

import (
	"bufio"
	"context"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestSecureHosts(t *testing.T) {
	local := func(addr string) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			a, err := net.ResolveTCPAddr("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(a)))
		}
	}
	tests := []struct {
		host string
		on   string // address the connection came in on
		want bool
	}{
		{"localhost", "127.0.0.1:80", true},
		{"LOCALHOST:8080", "127.0.0.1:80", true},
		{"localhost.", "127.0.0.1:80", true},
		{"127.0.0.1:8080", "127.0.0.1:80", true},
		{"127.9.9.9", "127.0.0.1:80", true},
		{"[::1]:8080", "[::1]:80", true},
		{"Upkeep.Example.ORG:443", "192.0.2.1:443", true},
		{"upkeep.example.org.", "192.0.2.1:443", true},
		{"192.0.2.1", "192.0.2.1:443", true},
		{"[2001:db8::1]:443", "[2001:db8::1]:443", true},
		{"192.0.2.2", "192.0.2.1:443", false},
		{"evil.example", "127.0.0.1:80", false},
		{"localhost.evil.example", "127.0.0.1:80", false},
		{"upkeep.example.org.evil.example", "127.0.0.1:80", false},
		{"127.0.0.1.nip.example", "127.0.0.1:80", false},
		{"2130706433", "127.0.0.1:80", false},
		{"0.0.0.0:8080", "127.0.0.1:80", false},
		{"", "127.0.0.1:80", false},
		{"[::1", "127.0.0.1:80", true}, // read as ::1, which is ours
		{"localhost@evil.example", "127.0.0.1:80", false},
	}
	h := Secure(Security{Hosts: []string{"upkeep.example.org"}}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	for _, tt := range tests {
		r := local(tt.on)(httptest.NewRequest("GET", "/", nil))
		r.Host = tt.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if ok := w.Code == 200; ok != tt.want {
			t.Errorf("host %q on %s: status %d", tt.host, tt.on, w.Code)
		}
		if w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("host %q: no content security policy", tt.host)
		}
	}
}

func TestSecureHeaders(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})
	w := httptest.NewRecorder()
	Secure(Security{}, page).ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/", nil))
	h := w.Header()
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
		if !strings.Contains(h.Get("Content-Security-Policy"), want) {
			t.Errorf("the policy %q lacks %s", h.Get("Content-Security-Policy"), want)
		}
	}
	if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
		t.Errorf("the policy %q has an exception", h.Get("Content-Security-Policy"))
	}
	for key, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Strict-Transport-Security": ""} {
		if got := h.Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	w = httptest.NewRecorder()
	Secure(Security{HTTPS: true}, page).ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/", nil))
	if w.Header().Get("Strict-Transport-Security") == "" {
		t.Error("no Strict-Transport-Security though the pages are reached by TLS")
	}
}

// A body over the limit is refused, whether or not its length is announced.
func TestSecureBody(t *testing.T) {
	var read error
	srv := httptest.NewServer(Secure(Security{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, read = io.ReadAll(r.Body); read != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})))
	defer srv.Close()
	for name, body := range map[string]io.Reader{
		"announced": strings.NewReader(strings.Repeat("x", MaxBody+1)),
		"streamed":  io.MultiReader(strings.NewReader(strings.Repeat("x", MaxBody)), strings.NewReader("x")),
	} {
		resp, err := http.Post(srv.URL, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
	}
	resp, err := http.Post(srv.URL, "text/plain", strings.NewReader(strings.Repeat("x", MaxBody)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("a body within the limit: status %d", resp.StatusCode)
	}
}

func TestHeaderLimit(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), slog.New(slog.DiscardHandler))
	srv.Start()
	defer srv.Close()
	req, err := http.NewRequest("GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 4*MaxHeader))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestStatic(t *testing.T) {
	for name, url := range staticURLs {
		w := httptest.NewRecorder()
		Static().ServeHTTP(w, httptest.NewRequest("GET", url, nil))
		if w.Code != 200 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Body.Len() == 0 || w.Header().Get("Content-Type") == "" {
			t.Errorf("%s at %s: status %d, %v", name, url, w.Code, w.Header())
		}
	}
	for _, path := range []string{"/static/", "/static/upkeep.css", "/static/../web.go", "/static/upkeep.000000000000.css"} {
		w := httptest.NewRecorder()
		Static().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 404 {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
}

// All that a first visit loads is small: nobody waits for a page about a wait.
func TestStaticSize(t *testing.T) {
	total := 0
	for _, f := range staticByURL {
		total += len(f.data)
	}
	if total > 25_000 {
		t.Errorf("style, script and icon have %d bytes, more than 25 kB", total)
	}
}

// The script must not be able to turn text into markup or code.
func TestScriptHasNoSinks(t *testing.T) {
	data, err := staticFS.ReadFile("static/upkeep.js")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`\.(inner|outer)HTML\s*=[^=]|insertAdjacentHTML|document\.write|eval\(|new Function|\.style\b`).Find(data); m != nil {
		t.Errorf("the script has %q", m)
	}
}

func TestRender(t *testing.T) {
	files := fstest.MapFS{
		"good.html": {Data: []byte(`{{define "main"}}<p>{{.}}</p>{{end}}`)},
		"bad.html":  {Data: []byte(`{{define "main"}}<p>begun{{index . "none" 3}}</p>{{end}}`)},
	}
	tt := NewTemplates(files, template.FuncMap{}, nil)
	w := httptest.NewRecorder()
	tt.Render(w, 404, "good.html", Page{Title: "<t>", Program: "upkeep", Data: "<script>", Refresh: 7, Live: "/e", Feed: "/f", User: "admin", Nav: []Link{{"/x", "X", true}}})
	for _, want := range []string{"&lt;t&gt;", "<p>&lt;script&gt;</p>", `content="7"`, `data-live="/e"`, `href="/f"`, "admin", `<a href="/x" aria-current="page">X</a>`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("lacks %q: %s", want, w.Body)
		}
	}
	if w.Code != 404 || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("status %d, %v", w.Code, w.Header())
	}
	for _, name := range []string{"bad.html", "none.html"} {
		w = httptest.NewRecorder()
		tt.Render(w, 200, name, Page{Data: "x"})
		if w.Code != 500 || strings.Contains(w.Body.String(), "begun") {
			t.Errorf("%s: status %d: %s", name, w.Code, w.Body)
		}
	}
}

// A stream outlives the server's read timeout, carries one event for many
// changes, and ends with its source.
func TestServeChanges(t *testing.T) {
	t.Parallel() // it waits
	changed := make(chan struct{}, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ServeChanges(w, r, changed, time.Millisecond)
	}))
	srv.Config.ReadTimeout = 2 * time.Second
	srv.Start()
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == "event: change" {
				return
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
	}
	next()                              // at once
	time.Sleep(2200 * time.Millisecond) // longer than the read timeout, which is what this is about
	changed <- struct{}{}
	next()
	close(changed)
	for lines.Scan() {
		if lines.Text() == "event: change" {
			t.Error("an event after the end")
		}
	}
}

func TestStreamSend(t *testing.T) {
	w := httptest.NewRecorder()
	s := &Stream{deadlines{w}, http.NewResponseController(deadlines{w})}
	if err := s.Send("x", "a\r\nb\nevent: evil"); err != nil {
		t.Fatal(err)
	}
	if err := s.Send("", map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	if got, want := w.Body.String(), "event: x\ndata: a\ndata: b\ndata: event: evil\n\ndata: {\"n\":1}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := s.Send("", func() {}); err == nil {
		t.Error("a function became JSON")
	}
}

type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetWriteDeadline(time.Time) error { return nil }

func TestDistanceAndClock(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "just now", 9 * time.Second: "just now", 59 * time.Second: "59 seconds ago", time.Minute: "1 minute ago",
		119 * time.Second: "1 minute ago", 2 * time.Hour: "2 hours ago", 47 * time.Hour: "47 hours ago", 49 * time.Hour: "2 days ago",
		-5 * time.Second: "in a moment", -50 * time.Second: "in 50 seconds", -23 * time.Hour: "in 23 hours",
	} {
		if got := Distance(d); got != want {
			t.Errorf("Distance(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "00:00", 41 * time.Second: "00:41", 61 * time.Minute: "1:01:00"} {
		if got := Clock(d); got != want {
			t.Errorf("Clock(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 6123456: "6.1 MB", 13e9: "13.0 GB", 1500: "1.5 kB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{180 * time.Millisecond: "180 ms", 8300 * time.Millisecond: "8.3 s", 247 * time.Second: "4 min 7 s", 125 * time.Minute: "2 h 5 min"} {
		if got := Seconds(d); got != want {
			t.Errorf("Seconds(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 71848828: "71 848 828", -123: "-123", -1234: "-1 234"} {
		if got := strings.ReplaceAll(Number(n), "\u202f", " "); got != want {
			t.Errorf("Number(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSentence(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "the policy is manual": "The policy is manual.", "v1.0.1 is newer": "v1.0.1 is newer.", "go1.26.8 is old": "go1.26.8 is old.",
		"Runs.": "Runs.", "example.org/x is gone": "example.org/x is gone.", "éa": "éa.", " x ": "X.",
	} {
		if got := Sentence(text); got != want {
			t.Errorf("Sentence(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestTimeTag(t *testing.T) {
	at := time.Date(2026, 11, 21, 3, 4, 5, 0, time.FixedZone("", 3600))
	if got := string(timeTag(at)); got != `<time datetime="2026-11-21T02:04:05Z" title="2026-11-21 02:04:05 UTC">21 Nov 2026, 02:04 UTC</time>` {
		t.Error(got)
	}
	if got := string(agoTag(at, at.Add(5*time.Minute))); !strings.Contains(got, "data-ago>5 minutes ago<") {
		t.Error(got)
	}
	if timeTag(time.Time{}) == "" || agoTag(time.Time{}, at) != "never" || clockTag(time.Time{}, at) != "" {
		t.Error("zero times")
	}
}
