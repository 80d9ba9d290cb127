package indexpage

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/tlog/index"
)

type fakeIndex struct{ err error }

const day = 24 * 60 * 60

func (f fakeIndex) Module(path string) (index.Module, bool, error) {
	if f.err != nil {
		return index.Module{}, false, f.err
	}
	switch path {
	case "github.com/mjl-/mox":
		return index.Module{Path: path,
			Majors: []index.Version{{Version: "v0.0.15", Time: 0x66fa7e15, Record: 1234}},
			Minors: []index.Version{{Version: "v0.0.15", Time: 0x66fa7e15, Record: 1234}},
		}, true, nil
	case "example.org/untagged":
		return index.Module{Path: path, Pseudo: &index.Version{Version: "v0.0.0-20260101000000-0123456789ab", Time: 20000 * day, Record: 9}}, true, nil
	case "example.org/" + strings.Repeat("x", 80):
		return index.Module{Path: path, Majors: []index.Version{{Version: "v1.0.0"}}}, true, nil
	}
	return index.Module{}, false, nil
}

func (f fakeIndex) Later(path string) ([]string, error) {
	if path == "github.com/mjl-/mox" {
		return []string{path + "/v2"}, f.err
	}
	return nil, f.err
}
func (f fakeIndex) IsPrefix(path string) (bool, error)     { return path == "github.com/mjl-", f.err }
func (f fakeIndex) HostSuffix(labels string) (bool, error) { return false, f.err }
func (f fakeIndex) Toolchains() ([]index.Toolchain, error) {
	return []index.Toolchain{{Version: "go1.26.8", Kind: "cur", Time: 20000 * day, Record: 77}}, f.err
}
func (f fakeIndex) Head() (index.Head, error) {
	return index.Head{Size: 71848828, Accepted: time.Unix(20400*day, 0)}, f.err
}
func (f fakeIndex) Changed() <-chan struct{} { return nil }

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
	return w
}

func TestPages(t *testing.T) {
	h := New(Config{Zone: "l.upkeep.test.", Server: "127.0.0.1:5353", Anchor: "/tmp/anchor.conf", LogName: "sum.golang.org",
		Health: nil}, fakeIndex{})
	tests := []struct {
		path string
		code int
		want []string
	}{
		{"/", 200, []string{"l.upkeep.test.", `data-n="71848828"`, "too long ago", "go1.26.8", "dig @127.0.0.1 -p 5353 +dnssec toolchain.v0.l.upkeep.test. TXT"}},
		{"/module/github.com/mjl-/mox", 200, []string{"mox.mjl_2d._.github.com.v0.l.upkeep.test.", "v=v0.0.15 t=66fa7e15",
			"dig @127.0.0.1 -p 5353", "-a /tmp/anchor.conf +root=l.upkeep.test ", ">1\u202f234<", "github.com/mjl-/mox/v2", "application/atom+xml"}},
		{"/module/example.org/untagged", 200, []string{"exists, without a release", "v0.0.0-20260101000000-0123456789ab"}},
		{"/module/example.org/" + strings.Repeat("x", 80), 200, []string{"cannot be asked for by DNS"}},
		{"/module/github.com/mjl-", 404, []string{"Some modules have paths below it"}},
		{"/module/example.org/none", 404, []string{"The index has no version of example.org/none"}},
		{"/module/nodot", 400, []string{"not a module path"}},
		{"/module/", 400, []string{"not a module path"}},
		{"/module/example.org/%3Cscript%3E", 400, []string{"&lt;script&gt;"}},
		{"/module/example.org/" + strings.Repeat("x", 400), 400, []string{"at most"}},
		{"/nothing", 404, []string{"no such page"}},
	}
	for _, tt := range tests {
		w := get(h, tt.path)
		if w.Code != tt.code {
			t.Errorf("%.80s: status %d, want %d", tt.path, w.Code, tt.code)
		}
		for _, want := range tt.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%.80s lacks %q:\n%s", tt.path, want, w.Body)
			}
		}
	}
}

func TestSearch(t *testing.T) {
	h := New(Config{Zone: "l.upkeep.test."}, fakeIndex{})
	for q, want := range map[string]string{
		"github.com%2Fmjl-%2Fmox":                         "/module/github.com/mjl-/mox",
		"+github.com%2Fmjl-%2Fmox%40v0.0.14+":             "/module/github.com/mjl-/mox",
		"https%3A%2F%2Fgithub.com%2Fmjl-%2Fmox%2F%3Fx%3D": "/module/github.com/mjl-/mox",
		"%2F%2Fevil.example":                              "/module/evil.example",
		"a%3Fb":                                           "/module/a%3Fb",
	} {
		w := get(h, "/?module="+q)
		if w.Code != 303 || w.Header().Get("Location") != want {
			t.Errorf("%s: status %d to %q, want %q", q, w.Code, w.Header().Get("Location"), want)
		}
	}
}

func TestAPIAndFeed(t *testing.T) {
	h := New(Config{Zone: "l.upkeep.test."}, fakeIndex{})
	var f found
	w := get(h, "/api/v1/module/github.com/mjl-/mox")
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || len(f.Majors) != 1 || f.Majors[0].Version != "v0.0.15" || f.LogSize != 71848828 {
		t.Errorf("module: %v %s", err, w.Body)
	}
	if w := get(h, "/api/v1/module/example.org/none"); w.Code != 404 || !strings.Contains(w.Body.String(), `"error"`) {
		t.Errorf("unknown module: status %d %s", w.Code, w.Body)
	}
	if w := get(h, "/api/v1/status"); !strings.Contains(w.Body.String(), `"log_size": 71848828`) {
		t.Errorf("status: %s", w.Body)
	}
	w = get(h, "/feed/github.com/mjl-/mox")
	var feed atomFeed
	if err := xml.Unmarshal(w.Body.Bytes(), &feed); err != nil || len(feed.Entries) != 1 || feed.Entries[0].Updated != "2024-09-30T10:31:49Z" ||
		!strings.HasPrefix(feed.ID, "urn:uuid:") || feed.Updated != feed.Entries[0].Updated || feed.Author.Name == "" {
		t.Errorf("feed: %v %s", err, w.Body)
	}
	if get(h, "/feed/github.com/mjl-/mox").Body.String() != w.Body.String() {
		t.Error("the feed's ids change")
	}
	for path, code := range map[string]int{"/feed/nodot": 400, "/feed/example.org/none": 404, "/api/v1/module/nodot": 400} {
		if w := get(h, path); w.Code != code {
			t.Errorf("%s: status %d, want %d", path, w.Code, code)
		}
	}
}

func TestBrokenIndex(t *testing.T) {
	h := New(Config{Zone: "l.upkeep.test."}, fakeIndex{errors.New("disk on fire")})
	for _, path := range []string{"/", "/module/github.com/mjl-/mox", "/feed/github.com/mjl-/mox", "/api/v1/status", "/api/v1/module/github.com/mjl-/mox"} {
		if w := get(h, path); w.Code != 500 {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
}
