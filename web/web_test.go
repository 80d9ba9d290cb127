package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/a-h/templ"
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

func text(s string) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, templ.EscapeString(s))
		return err
	})
}

func render(status int, p Page) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	Render(slog.New(slog.DiscardHandler), w, status, p)
	return w
}

func TestRender(t *testing.T) {
	w := render(404, Page{Title: "<t>", Program: "upkeep", Main: Message("a", "<script>"), Refresh: 7, Live: "/e", Feed: "/f", User: "admin", Nav: []Link{{"/x", "X", true}}})
	for _, want := range []string{"&lt;t&gt;", "<p>&lt;script&gt;</p>", `content="7"`, `data-live="/e"`, `href="/f"`, "admin", `<a href="/x" aria-current="page">X</a>`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("lacks %q: %s", want, w.Body)
		}
	}
	if w.Code != 404 || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
		t.Errorf("status %d, %v", w.Code, w.Header())
	}
	if w := render(200, Page{Main: text("")}); strings.Contains(w.Body.String(), "http-equiv") || strings.Contains(w.Body.String(), "data-live") {
		t.Errorf("a page that is not reloaded: %s", w.Body)
	}
}

// A page whose template fails in its middle is not written at all.
func TestRenderWholeOrNot(t *testing.T) {
	bad := templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		if _, err := io.WriteString(w, strings.Repeat("begun", 10_000)); err != nil {
			return err
		}
		return errors.New("no more")
	})
	w := render(200, Page{Main: bad})
	if w.Code != 500 || strings.Contains(w.Body.String(), "begun") || strings.Contains(w.Body.String(), "<html") {
		t.Errorf("status %d: %.200s", w.Code, w.Body)
	}
}

// Foreign text stays text, wherever it stands.
func TestRenderHostile(t *testing.T) {
	const unsafe = "about:invalid"
	for _, tt := range []struct {
		name string
		p    Page
		want string // in the page
	}{
		{"element", Page{Title: "</title><script>alert(1)</script>"}, "<title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;"},
		{"attribute", Page{Live: `"><script>alert(1)</script>`}, `data-live="&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"`},
		{"attribute, single quotes", Page{Live: `' onload='alert(1)`}, `data-live="&#39; onload=&#39;alert(1)"`},
		{"URL", Page{Nav: []Link{{Href: "javascript:alert(1)"}}}, unsafe},
		{"URL, capitals", Page{Nav: []Link{{Href: "JavaScript:alert(1)"}}}, unsafe},
		{"URL, leading space", Page{Nav: []Link{{Href: " javascript:alert(1)"}}}, unsafe},
		{"URL, leading control character", Page{Nav: []Link{{Href: "\x01javascript:alert(1)"}}}, unsafe},
		{"URL, tab inside", Page{Nav: []Link{{Href: "java\tscript:alert(1)"}}}, unsafe},
		{"URL, data", Page{Nav: []Link{{Href: "data:text/html,<script>alert(1)</script>"}}}, unsafe},
		{"URL, quotes", Page{Nav: []Link{{Href: `/"onclick="alert(1)`}}}, `href="/&#34;onclick=&#34;alert(1)"`},
		{"URL, entity", Page{Nav: []Link{{Href: "javascript&colon;alert(1)"}}}, `href="javascript&amp;colon;alert(1)"`},
		{"URL of link", Page{Feed: "vbscript:x"}, unsafe},
		{"NUL", Page{User: "a\x00b"}, "a\uFFFDb"},
		{"not UTF-8", Page{User: "a\xffb"}, "a\uFFFDb"},
	} {
		tt.p.Main = text("")
		body := render(200, tt.p).Body.String()
		if !strings.Contains(body, tt.want) {
			t.Errorf("%s: lacks %q: %s", tt.name, tt.want, body)
		}
		if strings.Contains(body, "<script>") || strings.Contains(body, `="javascript:`) || !utf8.ValidString(body) {
			t.Errorf("%s: %s", tt.name, body)
		}
	}
}

// A stream outlives the server's read timeout, carries one event for many
// changes, and ends with its source.
func TestServeChanges(t *testing.T) {
	synctest.Test(t, serveChanges)
}

func serveChanges(t *testing.T) {
	changed := make(chan struct{}, 1)
	near, far := net.Pipe()
	srv := &http.Server{ReadTimeout: 2 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ServeChanges(w, r, changed, time.Millisecond)
	})}
	go srv.Serve(&oneConn{conn: far})
	defer srv.Close()
	defer near.Close()
	r := httptest.NewRequest("GET", "http://localhost/", nil)
	if err := r.Write(near); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(near), r)
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
	next()                      // at once
	time.Sleep(3 * time.Second) // longer than the read timeout, which is what this is about
	changed <- struct{}{}
	next()
	close(changed)
	for lines.Scan() {
		if lines.Text() == "event: change" {
			t.Error("an event after the end")
		}
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	done bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.done {
		return nil, net.ErrClosed
	}
	l.done = true
	return l.conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

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

func TestTags(t *testing.T) {
	at := time.Date(2026, 11, 21, 3, 4, 5, 0, time.FixedZone("", 3600))
	var none time.Time
	for _, tt := range []struct {
		tag  templ.Component
		want string
	}{
		{Time(at), `<time datetime="2026-11-21T02:04:05Z" title="2026-11-21 02:04:05 UTC">21 Nov 2026, 02:04 UTC</time>`},
		{ago(at, at.Add(5*time.Minute)), `<time datetime="2026-11-21T02:04:05Z" title="2026-11-21 02:04:05 UTC" data-ago>5 minutes ago</time>`},
		{counter(at, at.Add(41*time.Second)), `<span class="clock" data-clock="2026-11-21T02:04:05Z">00:41</span>`},
		{counter(at, at.Add(-time.Hour)), `<span class="clock" data-clock="2026-11-21T02:04:05Z">00:00</span>`},
		{Time(none), "–"}, {ago(none, at), "never"}, {counter(none, at), ""},
	} {
		var b strings.Builder
		if err := tt.tag.Render(context.Background(), &b); err != nil || b.String() != tt.want {
			t.Errorf("got %q, want %q, %v", b.String(), tt.want, err)
		}
	}
}
