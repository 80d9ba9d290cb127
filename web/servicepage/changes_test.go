package servicepage

import (
	"net/url"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"

	"example.org/upkeep/supervisor"
)

func TestChanges(t *testing.T) {
	dep := func(path, v string) *debug.Module { return &debug.Module{Path: path, Version: v} }
	old := &debug.BuildInfo{GoVersion: "go1.26.7", Main: *dep("example.org/hello", "v1.4.0"), Deps: []*debug.Module{
		dep("example.org/a", "v1.9.0"), dep("example.org/b", "v2.0.0"), dep("example.org/gone", "v0.1.0"), dep("example.org/same", "v1.0.0"), dep("example.org/r", "v1.0.0")}}
	replaced := dep("example.org/r", "v1.0.0")
	replaced.Replace = dep("../r", "")
	new := &debug.BuildInfo{GoVersion: "go1.26.10", Main: *dep("example.org/hello", "v1.4.1"), Deps: []*debug.Module{
		dep("example.org/a", "v1.10.0"), dep("example.org/b", "v1.9.9"), dep("example.org/new", "v0.1.0"), dep("example.org/same", "v1.0.0"), replaced}}
	want := []change{
		{"Go", "go1.26.7", "go1.26.10", "newer"},
		{"example.org/a", "v1.9.0", "v1.10.0", "newer"},
		{"example.org/b", "v2.0.0", "v1.9.9", "older"},
		{"example.org/gone", "v0.1.0", "", "removed"},
		{"example.org/hello", "v1.4.0", "v1.4.1", "newer"},
		{"example.org/new", "", "v0.1.0", "added"},
		{"example.org/r", "v1.0.0", "v1.0.0 (replaced by ../r)", "replaced"},
	}
	if got := changes(old, new); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestChangesPage(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := newFake()
	h := New(Config{}, f)
	link := "/changes?" + url.Values{"from": {"v1.4.0 go1.26.8"}, "to": {"v1.4.1 go1.26.8"}}.Encode()
	if w := get(t, h, link); w.Code != 500 { // the sample's files are not there
		t.Errorf("status %d", w.Code)
	}
	f.st.Kept[0].File, f.st.Kept[1].File = exe, exe
	if w := get(t, h, link); w.Code != 200 || !strings.Contains(w.Body.String(), "Nothing differs") {
		t.Errorf("status %d", w.Code)
	}
	if body := get(t, h, "/").Body.String(); !strings.Contains(body, "/changes?from=v1.4.0") {
		t.Error("the overview has no link to the changes")
	}
	// Only files that the supervisor keeps are read.
	for _, from := range []string{exe, "/etc/passwd", "v9.9.9 go1.26.8", ""} {
		if w := get(t, h, "/changes?"+url.Values{"from": {from}, "to": {"v1.4.1 go1.26.8"}}.Encode()); w.Code != 404 {
			t.Errorf("%q: status %d", from, w.Code)
		}
	}
	if l := (&server{}).changesLink(supervisor.Status{}, f.st.History[0]); l != "" {
		t.Errorf("a link without binaries: %q", l)
	}
}
