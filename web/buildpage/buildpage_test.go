package buildpage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/spec"
)

const (
	specDone = "example.org/hello@v1.0.0/linux-amd64-go1.26.8/"
	specBad  = "example.org/hello@v1.0.1/cmd/x/linux-amd64-go1.26.8-stripped/"
	specNew  = "example.org/hello@v1.0.2/linux-amd64-go1.26.8/"
	specWait = "example.org/hello@v1.0.3/linux-amd64-go1.26.8/"
	specNow  = "example.org/hello@v1.0.4/windows-amd64-go1.26.8/"
	specTemp = "example.org/hello@v1.0.5/linux-amd64-go1.26.8/"
	sumDone  = "0Q2cQdVpYTB9gS4S2s0RrTWC8xpc"
	key      = "build.example.org+12345678+AbCdEf"
)

// A fake is a service; every address of its own answers with a page.
type fake struct {
	mu      sync.Mutex
	pages   *Pages
	results map[string]builder.Result
	output  map[string][]string
	started []string
	forgot  []string
	err     error
	onStart func()        // called by Watch, may be nil
	release chan struct{} // Watch ends when it is closed
}

func newFake(t *testing.T, cfg Config) (*fake, http.Handler) {
	t.Helper()
	f := &fake{results: map[string]builder.Result{}, release: make(chan struct{}), output: map[string][]string{
		specBad: {"# example.org/hello", "<i>undefined</i>"}, specNow: {"go: downloading"},
	}}
	for text, r := range map[string]builder.Result{
		specDone: {State: builder.StateSuccess, Size: 6123456, Sum: sumDone, LogID: 17, Started: time.Now(), Took: 8 * time.Second, Steps: []builder.Step{{Name: "compile", Took: 7 * time.Second}},
			Agreed: []builder.Agreement{{Name: "second.example.org", Key: "second.example.org+0badcafe+AbCd", Sum: sumDone, LogID: 99}, {Name: "third.example.org", Key: "third.example.org+0badcaff+AbCd", Sum: sumDone, LogID: -1}}},
		specBad:  {State: builder.StateFailed, Error: "<b>cannot build without cgo</b>. More."},
		specWait: {State: builder.StateQueued, Position: 3},
		specNow:  {State: builder.StateBuilding, Started: time.Now()},
		specTemp: {State: builder.StateTempFailed, Error: "The proxy does not answer.", RetryAt: time.Now().Add(time.Minute)},
	} {
		s, err := spec.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Spec = s
		f.results[text] = r
	}
	f.pages = New(cfg)
	return f, f.pages.Handler(f)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch text := strings.TrimPrefix(r.URL.Path, "/"); text {
	case "":
		f.pages.ServeHome(w, r)
	case "module":
		f.pages.ServeModule(w, r, builder.ModuleInfo{Module: "example.org/hello", Version: "v1.0.0", GOOS: "linux", GOARCH: "arm64", GoVersion: "go1.26.8",
			Commands: []builder.Command{{Name: "hello"}, {Dir: "cmd/x", Name: "x", Synopsis: "X does <x>."}}})
	case "library":
		f.pages.ServeModule(w, r, builder.ModuleInfo{Module: "example.org/lib", Version: "v1.0.0"})
	default:
		sp, err := spec.Parse(text)
		if err != nil {
			f.pages.ServeError(w, r, http.StatusNotFound, err.Error())
			return
		}
		res, err := f.Result(sp)
		if err != nil {
			f.pages.ServeError(w, r, http.StatusInternalServerError, err.Error())
			return
		}
		f.pages.ServeResult(w, r, res)
	}
}

func (f *fake) Status(context.Context) builder.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return builder.Status{VerifierKey: key, LogSize: 20, GoVersion: "go1.26.8", Previous: "go1.25.14",
		Building: []builder.Result{f.results[specNow]}, Queued: []builder.Result{f.results[specWait]},
		Recent:  []builder.Result{f.results[specDone], f.results[specBad], f.results[specTemp]},
		Alarms:  []builder.Alarm{{Time: time.Now(), Kind: "hash_mismatch", Text: "A binary on disk has changed."}},
		Missing: []string{"network namespace"}}
}

func (f *fake) Result(sp spec.Spec) (builder.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.results[sp.String()]; ok {
		return r, f.err
	}
	return builder.Result{Spec: sp}, f.err
}

func (f *fake) Output(sp spec.Spec) ([]string, error) { return f.output[sp.String()], nil }

func (f *fake) Forget(sp spec.Spec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, sp.String())
	return f.err
}

func (f *fake) Watch(ctx context.Context, sp spec.Spec, client string, emit func(builder.Event) error) (builder.Result, error) {
	f.mu.Lock()
	f.started = append(f.started, sp.String()+" for "+client)
	f.mu.Unlock()
	if f.onStart != nil {
		f.onStart()
	}
	position := 1
	if err := emit(builder.Event{Kind: "QueuePosition", QueuePosition: &position}); err != nil {
		return builder.Result{}, err
	}
	select {
	case <-f.release:
	case <-ctx.Done():
	}
	return builder.Result{Spec: sp}, emit(builder.Event{Kind: "Success"})
}

func (f *fake) starts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.started...)
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
	return w
}

func TestPages(t *testing.T) {
	f, h := newFake(t, Config{Base: "https://build.example.org", Metrics: true})
	tests := []struct {
		path string
		code int
		want []string
	}{
		{"/", 200, []string{"Go versions", key, "&lt;b&gt;cannot build without cgo", "position 3", `href="/` + specDone + sumDone + `/"`,
			"A binary on disk has changed.", "network namespace", "go1.25.14", "failed for now"}},
		{"/" + specDone, 200, []string{"Built", sumDone, "record 17", `href="/` + specDone + sumDone + `/hello-v1.0.0-go1.26.8"`, "hello-v1.0.0-go1.26.8.gz",
			"upkeep get -builder https://build.example.org -key '" + key, "GOTOOLCHAIN=go1.26.8", "compile 7.0 s",
			"second.example.org, record 99 of its log", "third.example.org <span class=\"soft\">(signed; its record was not seen yet)"}},
		{"/" + specBad, 200, []string{"Failed: &lt;b&gt;cannot build without cgo&lt;/b&gt;.</h1>", "&lt;/b&gt;. More.", "Try again", "&lt;i&gt;undefined"}},
		{"/" + specNew, 200, []string{"Not built yet", "Build it"}},
		{"/" + specWait, 200, []string{"position 3 in the queue", `content="2"`, `data-live="/-/events?spec=example.org%2Fhello%40v1.0.3`}},
		{"/" + specNow, 200, []string{"Being built", "go: downloading"}},
		{"/" + specTemp, 200, []string{"Failed: The proxy does not answer.", "it is tried again"}},
		{"/module", 200, []string{`href="/example.org/hello@v1.0.0/linux-arm64-go1.26.8/"`, `href="/example.org/hello@v1.0.0/cmd/x/linux-arm64-go1.26.8/"`, "X does &lt;x&gt;."}},
		{"/library", 200, []string{"no command"}},
		{"/nonsense", 404, []string{"Not found"}},
		{"/example.org/hello@v1.0.0/linux-amd64-go1.26.8/<script>/", 404, []string{"Not found"}},
		{"/-/nothing", 404, nil},
	}
	for _, tt := range tests {
		w := get(h, tt.path)
		if w.Code != tt.code {
			t.Errorf("%s: status %d, want %d", tt.path, w.Code, tt.code)
		}
		for _, want := range tt.want {
			body := w.Body.String()
			if !strings.Contains(want, "&lt;") {
				body = html.UnescapeString(body)
			}
			if !strings.Contains(body, want) {
				t.Errorf("%s lacks %q:\n%s", tt.path, want, w.Body)
			}
		}
		if w.Body.Len() > 50_000 {
			t.Errorf("%s has %d bytes", tt.path, w.Body.Len())
		}
	}
	if s := f.starts(); len(s) != 0 {
		t.Errorf("fetching pages started %v", s)
	}
}

// A crawler that follows every link of every page starts no build, and the
// links that cost something ask not to be followed.
func TestCrawlerStartsNothing(t *testing.T) {
	f, h := newFake(t, Config{Metrics: true})
	link := regexp.MustCompile(`<a [^>]*href="([^"]+)"[^>]*>`)
	queue, seen := []string{"/", "/module", "/" + specNew, "/-/find?module=example.org/hello&dir=.&target=linux-amd64&go=go1.26.8&version=v1.0.2"}, map[string]bool{}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		w := get(h, path)
		if to := w.Header().Get("Location"); to != "" {
			queue = append(queue, to)
		}
		for _, m := range link.FindAllStringSubmatch(w.Body.String(), -1) {
			to := html.UnescapeString(m[1])
			if !strings.HasPrefix(to, "/") {
				continue // the skip link
			}
			if base := to[strings.LastIndex(to, "/")+1:]; base != "" && to != "/metrics" && !strings.Contains(m[0], `rel="nofollow"`) {
				t.Errorf("%s links to the file %s without nofollow", path, to)
			}
			queue = append(queue, to)
		}
	}
	if len(seen) < 12 {
		t.Errorf("only %d addresses: %v", len(seen), seen)
	}
	if s := f.starts(); len(s) != 0 {
		t.Errorf("a crawler started %v", s)
	}
}

func TestFind(t *testing.T) {
	_, h := newFake(t, Config{})
	tests := []struct {
		query string
		code  int
		want  string
	}{
		{"module=example.org/hello", 303, "/example.org/hello"},
		{"module=https://example.org/hello@v1.0.0/&target=linux-amd64", 303, "/example.org/hello@v1.0.0"},
		{"module=example.org/hello&dir=cmd/x&target=linux-amd64&go=go1.26.8&version=v1.0.1&stripped=yes", 303, "/" + specBad},
		{"module=example.org/hello&dir=.&target=linux-amd64&go=go1.26.8&version=v1.0.0", 303, "/" + specDone},
		{"module=example.org/hello&dir=cmd/x&target=linux-amd64&version=v1", 400, "not canonical"},
		{"module=example.org/hello&version=v2.0.0", 400, "not a version"},
		{"module=example.org/hello&dir=../x&target=linux-amd64", 400, "not a clean relative path"},
		{"module=nodot", 400, "malformed module path"},
		{"", 400, "malformed module path"},
	}
	for _, tt := range tests {
		w := get(h, "/-/find?"+tt.query)
		if w.Code != tt.code || w.Code == 303 && w.Header().Get("Location") != tt.want || w.Code == 400 && !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: status %d to %q, want %d %q", tt.query, w.Code, w.Header().Get("Location"), tt.code, tt.want)
		}
	}
}

func post(h http.Handler, text, site string) int {
	r := httptest.NewRequest("POST", "http://localhost/-/build", strings.NewReader(url.Values{"spec": {text}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", site)
	r.RemoteAddr = "192.0.2.1:999"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestBuild(t *testing.T) {
	f, h := newFake(t, Config{})
	defer close(f.release)
	if code := post(h, specNew, "cross-site"); code != 403 || len(f.starts()) != 0 {
		t.Errorf("from another site: status %d, started %v", code, f.starts())
	}
	if code := post(h, "nonsense", "same-origin"); code != 400 {
		t.Errorf("nonsense: status %d", code)
	}
	for range 3 { // the second and third click wait for the same build
		if code := post(h, specNew, "same-origin"); code != 303 {
			t.Errorf("status %d", code)
		}
	}
	if s := f.starts(); len(s) != 1 || s[0] != specNew+" for 192.0.2.0/24" {
		t.Errorf("started %v", s)
	}
	if w := get(h, "/-/build?spec="+specNew); w.Code == 303 || len(f.starts()) != 1 {
		t.Errorf("GET started a build: status %d, %v", w.Code, f.starts())
	}
	f.mu.Lock()
	f.err = errors.New("the disk is full")
	f.mu.Unlock()
	if code := post(h, specBad, "same-origin"); code != 500 {
		t.Errorf("a result that cannot be forgotten: status %d", code)
	}
	if w := get(h, "/"+specDone); w.Code != 500 {
		t.Errorf("a result that cannot be read: status %d", w.Code)
	}
}

// After its build has ended a spec can be asked for again.
func TestBuildAgain(t *testing.T) {
	f, h := newFake(t, Config{})
	close(f.release)
	for n := range 2 {
		post(h, specBad, "same-origin")
		for end := time.Now().Add(2 * time.Minute); ; {
			f.pages.mu.Lock()
			waiting := len(f.pages.started)
			f.pages.mu.Unlock()
			if waiting == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the pages wait for ever")
			}
			time.Sleep(time.Millisecond) // nothing tells when the background wait is over
		}
		if s := f.starts(); len(s) != n+1 {
			t.Fatalf("started %v", s)
		}
	}
}

func TestHosts(t *testing.T) {
	_, h := newFake(t, Config{})
	for host, want := range map[string]int{"build.example.org": 200, "evil.example": 421} {
		r := httptest.NewRequest("GET", "http://localhost/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", host, w.Code, want)
		}
	}
}

func TestEvents(t *testing.T) {
	f, h := newFake(t, Config{})
	srv := httptest.NewServer(h)
	defer srv.Close()
	client := &http.Client{Timeout: 2 * time.Minute}
	for _, path := range []string{"/-/events", "/-/events?spec=" + url.QueryEscape(specWait)} {
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for n := range 2 {
			found := false
			for !found && lines.Scan() {
				found = lines.Text() == "event: change"
			}
			if !found {
				t.Fatalf("%s: the stream ended: %v", path, lines.Err())
			}
			if n == 0 {
				f.mu.Lock()
				res := f.results[specWait]
				res.Position--
				f.results[specWait] = res
				now := f.results[specNow]
				now.Spec.Version = fmt.Sprintf("v1.0.%d", 10+res.Position)
				f.results[specNow] = now
				f.mu.Unlock()
			}
		}
		resp.Body.Close()
	}
	if w := get(h, "/-/events?spec=nonsense"); w.Code != 400 {
		t.Errorf("nonsense: status %d", w.Code)
	}
	if s := f.starts(); len(s) != 0 {
		t.Errorf("watching started %v", s)
	}
	for range maxViewers {
		f.pages.viewers <- struct{}{}
	}
	if w := get(h, "/-/events"); w.Code != 503 {
		t.Errorf("too many viewers: status %d", w.Code)
	}
}

func TestFirstSentence(t *testing.T) {
	for text, want := range map[string]string{
		"One. Two.": "One.", "One.\nTwo.": "One.", "v1.2.3 is gone": "v1.2.3 is gone", strings.Repeat("é", 300): strings.Repeat("é", 200) + "…",
	} {
		if got := firstSentence(text); got != want {
			t.Errorf("firstSentence(%q) = %q", text, got)
		}
	}
}
