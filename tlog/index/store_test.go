package index_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

// small is content with modules of many versions already in small logs.
var small = logtest.Content{Spread: 1000}

func serve(t testing.TB, c logtest.Content, size int64) (*logtest.Server, string) {
	t.Helper()
	s, err := logtest.NewServer("", c, size)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, srv.URL
}

func client(t testing.TB, s *logtest.Server, url string) *tlog.Client {
	t.Helper()
	c, err := tlog.NewClient(tlog.ClientConfig{Key: s.VerifierKey(), URL: url, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, file string, opts index.Options) *index.Store {
	t.Helper()
	s, err := index.Open(file, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func follow(t testing.TB, s *index.Store, c *tlog.Client) {
	t.Helper()
	head, err := c.Update(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Follow(t.Context(), c, head, 0, nil); err != nil {
		t.Fatal(err)
	}
}

func dump(t testing.TB, s *index.Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// An oracle knows every version and answers the slow way.
type oracle struct {
	modules map[string]map[string]int64 // path → version → record
	hosts   map[string]bool
}

func newOracle(c logtest.Content, size int64) *oracle {
	o := &oracle{map[string]map[string]int64{}, map[string]bool{}}
	for i := range size {
		path, version, _ := strings.Cut(string(c.AppendVersion(nil, i)), " ")
		if o.modules[path] == nil {
			o.modules[path] = map[string]int64{}
		}
		if _, ok := o.modules[path][version]; !ok {
			o.modules[path][version] = i
		}
		o.hosts[strings.Split(path, "/")[0]] = true
	}
	return o
}

func (o *oracle) module(path string) index.Module {
	m := index.Module{Path: path}
	var versions []string
	releases, tagged := 0, 0
	for v := range o.modules[path] {
		versions = append(versions, v)
		if semver.Prerelease(v) == "" {
			releases++
		}
		if !module.IsPseudoVersion(v) {
			tagged++
		}
	}
	sort.Slice(versions, func(i, j int) bool { return semver.Compare(versions[i], versions[j]) > 0 })
	majors, lines := map[string]bool{}, map[string]bool{}
	for _, v := range versions {
		ver := index.Version{Version: v, Record: o.modules[path][v]}
		switch {
		case module.IsPseudoVersion(v):
			if tagged == 0 && m.Pseudo == nil {
				m.Pseudo = &ver
			}
		case semver.Prerelease(v) != "":
			if len(majors) == 0 && m.Pre == nil {
				m.Pre = &ver
			}
		default:
			if !majors[semver.Major(v)] {
				majors[semver.Major(v)] = true
				m.Majors = append(m.Majors, ver)
			}
			if !lines[semver.MajorMinor(v)] && len(lines) < 4 {
				lines[semver.MajorMinor(v)] = true
				m.Minors = append(m.Minors, ver)
			}
		}
	}
	return m
}

// text writes an answer without times.
func text(m index.Module) string {
	var b strings.Builder
	show := func(role string, vs ...index.Version) {
		for _, v := range vs {
			fmt.Fprintf(&b, " %s=%s@%d", role, v.Version, v.Record)
		}
	}
	show("major", m.Majors...)
	show("minor", m.Minors...)
	if m.Pre != nil {
		show("pre", *m.Pre)
	}
	if m.Pseudo != nil {
		show("pseudo", *m.Pseudo)
	}
	return b.String()
}

func TestStoreAgainstOracle(t *testing.T) {
	const size = 60_123
	srv, url := serve(t, small, 700)
	c := client(t, srv, url)
	file := filepath.Join(t.TempDir(), "index.db")
	// Small limits, so that journal and merges happen often.
	s := open(t, file, index.Options{MergeBytes: 1 << 20, MergeModules: 77, JournalPeriod: time.Millisecond})
	for _, n := range []int64{700, 701, 20_000, size} {
		if err := srv.SetSize(n); err != nil {
			t.Fatal(err)
		}
		follow(t, s, c)
	}
	o := newOracle(small, size)
	prefixes := map[string]bool{}
	for path := range o.modules {
		m, ok, err := s.Module(path)
		if err != nil || !ok {
			t.Fatalf("Module(%s): %v, %v", path, ok, err)
		}
		if want := o.module(path); text(m) != text(want) {
			t.Fatalf("Module(%s):\n%s; want\n%s", path, text(m), text(want))
		}
		for i := range path {
			if path[i] == '/' {
				prefixes[path[:i]] = true
			}
		}
	}
	for p := range prefixes {
		if ok, err := s.IsPrefix(p); !ok || err != nil {
			t.Errorf("IsPrefix(%s): %v, %v; want true", p, ok, err)
		}
	}
	for _, p := range []string{"", "github.co", "github.com/Azur", "example.org", "zzz.org/x"} {
		if ok, err := s.IsPrefix(p); ok || err != nil {
			t.Errorf("IsPrefix(%s): %v, %v; want false", p, ok, err)
		}
		if _, ok, err := s.Module(p); ok || err != nil {
			t.Errorf("Module(%s): %v, %v; want none", p, ok, err)
		}
	}
	for host := range o.hosts {
		for suffix := host; suffix != ""; _, suffix, _ = strings.Cut(suffix, ".") {
			if ok, err := s.HostSuffix(suffix); !ok || err != nil {
				t.Errorf("HostSuffix(%s): %v, %v; want true", suffix, ok, err)
			}
		}
	}
	for _, host := range []string{"", "om", "hub.com", "x.github.com", "invalid"} {
		if ok, err := s.HostSuffix(host); ok || err != nil {
			t.Errorf("HostSuffix(%s): %v, %v; want false", host, ok, err)
		}
	}
	for path := range o.modules {
		later, err := s.Later(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := o.later(path); fmt.Sprint(later) != fmt.Sprint(want) {
			t.Fatalf("Later(%s) is %v; want %v", path, later, want)
		}
	}
	head, err := s.Head()
	if err != nil || head.Size != size {
		t.Errorf("Head: %+v, %v", head, err)
	}

	// The same in one go, and opened again, is the same to the byte.
	want := dump(t, s)
	one := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
	follow(t, one, c)
	if got := dump(t, one); got != want {
		t.Errorf("an index made in one go differs: %s", difference(got, want))
	}
	s.Close()
	s = open(t, file, index.Options{})
	if got := dump(t, s); got != want {
		t.Errorf("the index opened again differs: %s", difference(got, want))
	}
	tools, err := s.Toolchains()
	if err != nil || fmt.Sprint(tools) != fmt.Sprint([]index.Toolchain{{Version: "go1.21rc1", Kind: "next", Time: tools[0].Time, Record: 777}}) {
		t.Errorf("Toolchains: %v, %v", tools, err)
	}
}

func (o *oracle) later(path string) []string {
	base, major, ok := module.SplitPathVersion(path)
	if !ok {
		return nil
	}
	from := 1
	if major != "" {
		fmt.Sscanf(major[2:], "%d", &from)
	}
	var out []string
	for n := max(2, from+1); n < 20; n++ {
		sep := "/v"
		if strings.HasPrefix(path, "gopkg.in/") {
			sep = ".v"
		}
		if p := fmt.Sprint(base, sep, n); o.modules[p] != nil {
			out = append(out, p)
		}
	}
	return out
}

func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is %q; want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines; want %d", len(g), len(w))
}
