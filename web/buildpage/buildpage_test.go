package buildpage

import (
	"context"
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
)

const (
	specDone = "example.org/hello@v1.0.0/linux-amd64-go1.26.8/"
	specBad  = "example.org/hello@v1.0.1/cmd/x/linux-amd64-go1.26.8-stripped/"
	specNew  = "example.org/hello@v1.0.2/linux-amd64-go1.26.8/"
	specWait = "example.org/hello@v1.0.3/linux-amd64-go1.26.8/"
	specNow  = "example.org/hello@v1.0.4/windows-amd64-go1.26.8/"
	sumDone  = "0Q2cQdVpYTB9gS4S2s0RrTWC8xpc"
	key      = "build.example.org+12345678+AbCdEf"
)

type fake struct {
	builds  map[string]Build
	started []string
	err     error
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{builds: map[string]Build{}}
	for text, b := range map[string]Build{
		specDone: {State: StateDone, Size: 6123456, Sum: sumDone, Index: 17, LogSize: 20, Ended: time.Now(), Agreed: []string{"other.example.org"}},
		specBad:  {State: StateFailed, Error: "<b>cannot build without cgo</b>", Output: []string{"# example.org/hello", "<i>undefined</i>"}},
		specWait: {State: StateQueued, Queue: 3},
		specNow:  {State: StateBuilding, Started: time.Now(), Output: []string{"go: downloading"}},
	} {
		s, err := spec.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		b.Spec = s
		f.builds[text] = b
	}
	return f
}

func (f *fake) Recent(context.Context, int) ([]Build, error) {
	var all []Build
	for _, b := range f.builds {
		all = append(all, b)
	}
	return all, f.err
}

func (f *fake) Find(_ context.Context, s spec.Spec) (Build, error) {
	if b, ok := f.builds[s.String()]; ok {
		return b, f.err
	}
	return Build{Spec: s, State: StateNew}, f.err
}

func (f *fake) Start(_ context.Context, s spec.Spec) error {
	f.started = append(f.started, s.String())
	return f.err
}
func (f *fake) Watch(ctx context.Context) <-chan struct{} { return make(chan struct{}) }
func (f *fake) Log() Log                                  { return Log{Name: "build.example.org", Key: key, Size: 20} }

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
	return w
}

func TestPages(t *testing.T) {
	f := newFake(t)
	h := New(Config{Base: "https://build.example.org"}, f)
	tests := []struct {
		path string
		code int
		want []string
	}{
		{"/", 200, []string{"Recent builds", key, "&lt;b&gt;cannot build without cgo", "position 3", `href="/` + specDone + sumDone + `/"`}},
		{"/" + specDone, 200, []string{"Built", sumDone, "record 17", `href="/` + specDone + sumDone + `/hello-v1.0.0-go1.26.8"`, "hello-v1.0.0-go1.26.8.gz",
			"upkeep get -builder https://build.example.org -key '" + key, "GOTOOLCHAIN=go1.26.8", "other.example.org"}},
		{"/" + specDone + sumDone + "/", 200, []string{"Built"}},
		{"/" + specDone + "0b6WuCOxGdzkZYEmOyJ8sdn0Zjlc/", 404, []string{"no result with the sum"}},
		{"/" + specBad, 200, []string{"Failed: &lt;b&gt;cannot build without cgo", "Try again", "&lt;i&gt;undefined"}},
		{"/" + specNew, 200, []string{"Not built yet", "Build it"}},
		{"/" + specWait, 200, []string{"position 3 in the queue", `content="2"`, `data-live="/-/events"`}},
		{"/" + specNow, 200, []string{"Being built", "go: downloading"}},
		{"/nonsense", 404, []string{"Not a build"}},
		{"/example.org/hello@v1.0.0/linux-amd64-go1.26.8/<script>/", 404, []string{"Not a build"}},
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
		if len(w.Body.String()) > 50_000 {
			t.Errorf("%s has %d bytes", tt.path, w.Body.Len())
		}
	}
	if len(f.started) != 0 {
		t.Errorf("fetching pages started %v", f.started)
	}
}

func TestFind(t *testing.T) {
	h := New(Config{}, newFake(t))
	tests := []struct {
		query string
		code  int
		want  string
	}{
		{"module=example.org/hello", 303, "/example.org/hello@latest?target="},
		{"module=https://example.org/hello@v1.0.0/&target=linux-amd64", 303, "/example.org/hello@v1.0.0?target=linux-amd64"},
		{"module=example.org/hello&dir=cmd/x&target=linux-amd64&go=go1.26.8&version=v1.0.1&stripped=yes", 303, "/" + specBad},
		{"module=example.org/hello&dir=cmd/x&target=linux-amd64&version=v1", 400, "not canonical"},
		{"module=example.org/hello&dir=../x&target=linux-amd64", 400, "not a clean relative path"},
		{"module=nodot", 400, "malformed module path"},
		{"", 400, "malformed module path"},
	}
	for _, tt := range tests {
		w := get(h, "/-/find?"+tt.query)
		if got := w.Header().Get("Location") + w.Body.String(); w.Code != tt.code || !strings.Contains(got, tt.want) {
			t.Errorf("%s: status %d, %q lacks %q", tt.query, w.Code, w.Header().Get("Location"), tt.want)
		}
	}
}

func TestBuild(t *testing.T) {
	f := newFake(t)
	h := New(Config{}, f)
	post := func(text, site string) int {
		r := httptest.NewRequest("POST", "http://localhost/-/build", strings.NewReader(url.Values{"spec": {text}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	if code := post(specNew, "cross-site"); code != 403 || len(f.started) != 0 {
		t.Errorf("from another site: status %d, started %v", code, f.started)
	}
	if code := post("nonsense", "same-origin"); code != 400 {
		t.Errorf("nonsense: status %d", code)
	}
	if code := post(specNew, "same-origin"); code != 303 || len(f.started) != 1 || f.started[0] != specNew {
		t.Errorf("status %d, started %v", code, f.started)
	}
	if w := get(h, "/-/build?spec="+specNew); w.Code == 303 || len(f.started) != 1 {
		t.Errorf("GET started a build: status %d, %v", w.Code, f.started)
	}
	f.err = errors.New("the queue is full")
	if code := post(specNew, "same-origin"); code != 503 {
		t.Errorf("full queue: status %d", code)
	}
	for _, path := range []string{"/", "/" + specDone} {
		if w := get(h, path); w.Code != 500 {
			t.Errorf("broken builder, %s: status %d", path, w.Code)
		}
	}
}

func TestCommands(t *testing.T) {
	p := New(Config{}, newFake(t))
	w := httptest.NewRecorder()
	p.Commands(w, "example.org/hello", "v1.0.0", []string{"", "cmd/x"}, "linux-amd64-latest")
	for _, want := range []string{`href="/example.org/hello@v1.0.0/linux-amd64-latest/"`, `href="/example.org/hello@v1.0.0/cmd/x/linux-amd64-latest/"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("lacks %q: %s", want, w.Body)
		}
	}
	w = httptest.NewRecorder()
	p.Commands(w, "example.org/lib", "v1.0.0", nil, "linux-amd64-latest")
	if !strings.Contains(w.Body.String(), "no command") {
		t.Errorf("a library: %s", w.Body)
	}
}
