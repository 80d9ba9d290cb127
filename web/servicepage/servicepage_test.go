package servicepage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/supervisor"
)

func newFake() *fake {
	return &fake{st: sample(time.Now()), lines: sampleLines()}
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	return send(t, h, httptest.NewRequest("GET", "http://localhost"+path, nil))
}

func send(t *testing.T, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func post(path string, form url.Values) *http.Request {
	r := httptest.NewRequest("POST", "http://localhost"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func TestOverview(t *testing.T) {
	f := newFake()
	h := New(Config{Metrics: http.NotFoundHandler(), Builder: "https://build.example.org"}, f)
	w := get(t, h, "/")
	body := w.Body.String()
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, body)
	}
	for _, want := range []string{
		`<h1 id="sentence">Update to v1.4.2 in 6 hours.</h1>`,
		`id="running-version">v1.4.1<`, `id="running-go">go1.26.8<`,
		"A new major version is only installed when somebody asks.",
		"The binary from build.example.org has the sum 0SInS7Fp5GfZvpGP38YXcVcAPcvE",
		"did not answer its health check", "Upgrade now to v1.4.2", `href="/metrics"`,
		"Retracted by its author: Loses the last line of a log.",
		"record 1812 of the build log", "the same bytes came out for other.example.org (record 977), third.example.org", "GET /calendar/39 200",
		"https://github.com/example/hello/releases/tag/v1.4.2",
		"https://build.example.org/github.com/example/hello@v1.4.2/cmd/hello/linux-amd64-go1.26.8/",
		"Roll back to v1.4.0", "Skipped by admin",
		// upkeep itself, the same way
		`id="self-version">v0.3.0<`, `id="self-go">go1.26.8<`, "Upgrade upkeep now", "Roll upkeep back to v0.2.9",
		"sum <code>0uPpQbJ0nR7m1qJ3xk4oW8c2v5Tz</code>, record 1700 of the build log", `id="self-menu-v0.3.1-go1.26.8"`,
		"serving 12 calendars &lt;ok&gt;",
		// how a new version takes over
		"connections wait, none is refused: its listening sockets stay open", "tcp 0.0.0.0:443",
		`href="/schedule?go_version=go1.26.8&amp;version=v1.4.2"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if body := get(t, h, "/log").Body.String(); strings.Contains(body, "<script>alert") || !strings.Contains(body, "&lt;script&gt;alert") {
		t.Error("a log line became markup")
	}
	if m := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:`).FindString(body); m != "" {
		t.Errorf("inline script or style: %q", m)
	}
	if strings.Contains(body, `http-equiv="refresh" content="2"`) {
		t.Error("the page reloads every two seconds though nothing runs")
	}
	if n := len(body); n > 50_000 {
		t.Errorf("the page has %d bytes, more than 50 kB", n)
	}
}

func TestOverviewStale(t *testing.T) {
	f := newFake()
	h := New(Config{Metrics: http.NotFoundHandler()}, f)
	if body := get(t, h, "/").Body.String(); strings.Contains(body, "Stale since") {
		t.Error("fresh knowledge is called stale")
	}
	f.st.Knowledge.StaleSince = f.st.Now.Add(-time.Hour)
	if body := get(t, h, "/").Body.String(); !strings.Contains(body, "Stale since") || strings.Contains(body, "dropped on the way") {
		t.Error("the page does not say that knowledge is stale")
	}
	f.st.Knowledge.Silent = true
	if body := get(t, h, "/").Body.String(); !strings.Contains(body, "dropped on the way") {
		t.Error("the page does not say that it has been silent")
	}
}

func TestOverviewWhileUpdating(t *testing.T) {
	f := newFake()
	updating(&f.st, time.Now())
	h := New(Config{}, f)
	body := get(t, h, "/").Body.String()
	for _, want := range []string{
		`<noscript><meta http-equiv="refresh" content="2"></noscript>`,
		`<li class="done">build`, `<li class="now" aria-current="step">download`, `value="63"`,
		"63 % of 6.1 MB", "record 1840, included", `value="cancel"`, `aria-live="polite"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(body, `id="upgrade"`) {
		t.Error("the page offers an upgrade while one runs")
	}
}

// The sentence for each code, when the engine gives none.
func TestSentence(t *testing.T) {
	for code, want := range map[supervisor.Code]string{
		supervisor.CodeCurrent: "Up to date", supervisor.CodePending: "Update available",
		supervisor.CodeUpdating: "Updating", supervisor.CodePaused: "Held back", supervisor.CodeFailing: "Failing",
	} {
		if text, _, _ := sentence(supervisor.Status{Code: code}); !strings.HasPrefix(text, want) {
			t.Errorf("%s: %q", code, text)
		}
	}
}

func TestShorten(t *testing.T) {
	long := "Failing: New versions can't be learned: discovery: source \"server://127.0.0.1:1\" is a name server of l.upkeep.test. itself, which cannot give the chain"
	for text, want := range map[string][2]string{
		"Up to date.":               {"Up to date.", ""},
		long:                        {"Failing: New versions can't be learned", long[len("Failing: New versions can't be learned: "):]},
		strings.Repeat("word ", 40): {strings.TrimSpace(strings.Repeat("word ", 21)) + " word …", strings.Repeat("word ", 40)},
		strings.Repeat("x", 200):    {strings.Repeat("x", 200), ""},
	} {
		if head, more := shorten(text); head != want[0] || more != want[1] {
			t.Errorf("shorten(%q) = %q, %q", text, head, more)
		}
	}
	if s, _, _ := sentence(supervisor.Status{Code: supervisor.CodeFailing, Summary: "The service is down."}); s != "Failing: The service is down." {
		t.Error(s)
	}
}

func TestEveryPageRendersEmptyAndFull(t *testing.T) {
	for name, f := range map[string]*fake{"empty": {}, "full": newFake()} {
		h := New(Config{}, f)
		for _, path := range []string{"/", "/history", "/log", "/history?result=refused&q=v1.4.1"} {
			if w := get(t, h, path); w.Code != 200 || !strings.Contains(w.Body.String(), "</html>") {
				t.Errorf("%s %s: status %d", name, path, w.Code)
			}
		}
		if w := get(t, h, "/nothing"); w.Code != 404 || !strings.Contains(w.Body.String(), "no such page") {
			t.Errorf("%s: an unknown page has status %d", name, w.Code)
		}
	}
}

func TestHistoryFilter(t *testing.T) {
	h := New(Config{}, newFake())
	for path, want := range map[string]string{
		"/history": "4 of 4", "/history?result=refused": "1 of 4", "/history?q=admin": "1 of 4", "/history?q=nobody": "None of the 4",
	} {
		if body := get(t, h, path).Body.String(); !strings.Contains(body, want) {
			t.Errorf("%s lacks %q", path, want)
		}
	}
}

func TestAction(t *testing.T) {
	tests := []struct {
		name, verb, version string
		confirmed           bool
		want                int
		done                bool
	}{
		{"the candidate needs one click", "update", "v1.4.2", false, 303, true},
		{"the candidate by default", "update", "", false, 303, true},
		{"a major version asks first", "update", "v2.0.0", false, 200, false},
		{"a major version, confirmed", "update", "v2.0.0", true, 303, true},
		{"an unknown version asks first", "update", "v9.9.9", false, 200, false},
		{"going back asks first", "rollback", "v1.4.0", false, 200, false},
		{"going back, confirmed", "rollback", "v1.4.0", true, 303, true},
		{"skip", "skip", "v1.4.2", false, 303, true},
		{"unknown verb", "explode", "", false, 400, false},
		{"no verb", "", "", false, 400, false},
		{"an endless version", "skip", strings.Repeat("v", 300), false, 400, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			form := url.Values{"verb": {tt.verb}, "version": {tt.version}}
			if tt.confirmed {
				form.Set("confirmed", "yes")
			}
			w := send(t, New(Config{}, f), post("/action", form))
			if w.Code != tt.want {
				t.Errorf("status %d, want %d", w.Code, tt.want)
			}
			done := f.done()
			if (len(done) == 1) != tt.done {
				t.Fatalf("done: %v", done)
			}
			if tt.done && (done[0].Verb != tt.verb || done[0].Version != tt.version || done[0].By == "") {
				t.Errorf("done: %+v", done[0])
			}
		})
	}
}

func TestActionOnHoldAsksFirst(t *testing.T) {
	f := newFake()
	f.st.Hold = true
	if w := send(t, New(Config{}, f), post("/action", url.Values{"verb": {"update"}})); w.Code != 200 || len(f.done()) != 0 {
		t.Errorf("status %d, done %v", w.Code, f.done())
	}
}

func TestActionRefusedByTheEngine(t *testing.T) {
	f := newFake()
	f.refuse = "an update is under way"
	w := send(t, New(Config{}, f), post("/action", url.Values{"verb": {"check"}}))
	if w.Code != 409 || !strings.Contains(w.Body.String(), "an update is under way") {
		t.Errorf("status %d", w.Code)
	}
}

// No address changes anything when it is only fetched.
func TestGetChangesNothing(t *testing.T) {
	f := newFake()
	h := New(Config{}, f)
	for _, path := range []string{"/action?verb=update", "/api/v1/actions?verb=update", "/?verb=update", "/history?verb=update"} {
		for _, method := range []string{"GET", "HEAD"} {
			send(t, h, httptest.NewRequest(method, "http://localhost"+path, nil))
		}
	}
	if done := f.done(); len(done) != 0 {
		t.Errorf("done: %v", done)
	}
}

func TestForeignPagesAreRefused(t *testing.T) {
	tests := []struct {
		name string
		set  func(*http.Request)
		want int
	}{
		{"own page", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, 303},
		{"a program", func(*http.Request) {}, 303},
		{"another site", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"another port of this host", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		{"another origin, old browser", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"sandboxed frame", func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		{"rebinding", func(r *http.Request) { r.Host = "evil.example:8080"; r.Header.Set("Sec-Fetch-Site", "same-origin") }, 421},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			h := New(Config{}, f)
			form := post("/action", url.Values{"verb": {"check"}})
			tt.set(form)
			if w := send(t, h, form); w.Code != tt.want {
				t.Errorf("form: status %d, want %d", w.Code, tt.want)
			}
			if accepted := tt.want == 303; (len(f.done()) == 1) != accepted {
				t.Errorf("done: %v", f.done())
			}
			api := httptest.NewRequest("POST", "http://localhost/api/v1/actions", strings.NewReader(`{"verb":"check"}`))
			api.Header.Set("Content-Type", "application/json")
			tt.set(api)
			want := tt.want
			if want == 303 {
				want = 202
			}
			if w := send(t, h, api); w.Code != want {
				t.Errorf("API: status %d, want %d", w.Code, want)
			}
		})
	}
}

func TestAPI(t *testing.T) {
	f := newFake()
	h := New(Config{}, f)
	w := get(t, h, "/api/v1/status")
	var st supervisor.Status
	if err := json.Unmarshal(w.Body.Bytes(), &st); err != nil || st.Service.Version != "v1.4.1" || len(st.Plan.Versions) != 5 {
		t.Errorf("status: %v %+v", err, st.Service)
	}
	var logs struct{ Lines []string }
	if err := json.Unmarshal(get(t, h, "/api/v1/logs?n=3").Body.Bytes(), &logs); err != nil || len(logs.Lines) != 3 {
		t.Errorf("logs: %v %v", err, logs)
	}
	for _, path := range []string{"/api/v1/logs?n=0", "/api/v1/logs?n=201", "/api/v1/logs?n=x"} {
		if w := get(t, h, path); w.Code != 400 {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
	tests := []struct {
		body, kind string
		want       int
	}{
		{`{"verb":"pause","reason":"holidays","by":"cron"}`, "application/json", 202},
		{`{"verb":"pause"}`, "text/plain", 415},
		{`{"verb":"explode"}`, "application/json", 400},
		{`{"verb":"pause","vresion":"v1"}`, "application/json", 400},
		{`{`, "application/json", 400},
		{`{"verb":"` + strings.Repeat("x", 1<<17) + `"}`, "application/json", 413},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("POST", "http://localhost/api/v1/actions", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.kind)
		if w := send(t, h, r); w.Code != tt.want {
			t.Errorf("%.60s: status %d, want %d", tt.body, w.Code, tt.want)
		}
	}
	if done := f.done(); len(done) != 1 || done[0].Reason != "holidays" || done[0].By != "cron" {
		t.Errorf("done: %+v", done)
	}
	f.err = errors.New("the engine has stopped")
	if w := get(t, h, "/api/v1/status"); w.Code != 503 || !strings.Contains(w.Body.String(), "the engine has stopped") {
		t.Errorf("status %d", w.Code)
	}
	if w := get(t, h, "/"); w.Code != 503 {
		t.Errorf("page: status %d", w.Code)
	}
}

// The version is told to everybody only where the operator said so.
func TestVersionEndpoint(t *testing.T) {
	if w := get(t, New(Config{}, newFake()), "/version"); w.Code != 404 || strings.Contains(w.Body.String(), "v1.4.1") {
		t.Errorf("not enabled: status %d", w.Code)
	}
	w := get(t, New(Config{Version: true}, newFake()), "/version")
	var v struct {
		Module, Version string
		GoVersion       string `json:"go_version"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 || v.Module != "github.com/example/hello" || v.Version != "v1.4.1" || v.GoVersion != "go1.26.8" {
		t.Errorf("enabled: status %d, %v %+v", w.Code, err, v)
	}
}

// A stream ends with its source: upkeep's own exec must not wait for viewers.
func TestEventsEnd(t *testing.T) {
	f := newFake()
	srv := httptest.NewServer(New(Config{}, f))
	defer srv.Close()
	client := &http.Client{Timeout: 2 * time.Minute}
	for _, path := range []string{"/events", "/api/v1/events"} {
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		for _, c := range f.watch {
			close(c)
		}
		f.watch = nil
		f.mu.Unlock()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		resp.Body.Close()
	}
}

func TestEvents(t *testing.T) {
	f := newFake()
	srv := httptest.NewServer(New(Config{}, f))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for path, wants := range map[string][2]string{
		"/events":        {"event: change", "event: change"},
		"/api/v1/events": {`"version":"v1.4.1"`, `"version":"v1.4.2"`},
	} {
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Errorf("%s: content type %q", path, kind)
		}
		lines := bufio.NewReader(resp.Body)
		for i, want := range wants {
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatalf("%s: event %d: %v", path, i, err)
				}
				if strings.Contains(line, want) {
					break
				}
			}
			f.change(func(st *supervisor.Status) { st.Service.Version = "v1.4.2" })
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(lines, 1))
		resp.Body.Close()
		f.change(func(st *supervisor.Status) { st.Service.Version = "v1.4.1" })
	}
}
