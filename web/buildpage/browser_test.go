package buildpage

import (
	"net/http/httptest"
	"testing"
	"time"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

func mustSpec(t *testing.T, text string) spec.Spec {
	t.Helper()
	s, err := spec.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fake) set(text string, change func(*builder.Result)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.results[text]
	change(&r)
	f.results[text] = r
}

// Find a build, start it with one click, watch it, get the result.
func TestBrowserBuild(t *testing.T) {
	for _, script := range []bool{true, false} {
		name := "with script"
		if !script {
			name = "without script"
		}
		t.Run(name, func(t *testing.T) {
			tab := webtest.New(t)
			f, h := newFake(t, Config{})
			defer close(f.release)
			srv := httptest.NewServer(h)
			defer webtest.Close(srv)
			if !script {
				tab.NoScript()
			}
			tab.Go(srv.URL + "/")
			tab.Fill("[name=module]", "https://example.org/hello")
			tab.Fill("[name=version]", "v1.0.2")
			tab.Fill("[name=dir]", ".")
			tab.Fill("[name=target]", "linux-amd64")
			tab.Fill("[name=go]", "go1.26.8")
			tab.Click("form[role=search] button")
			tab.UntilText("#sentence", "Not built yet")
			if s := f.starts(); len(s) != 0 {
				t.Fatalf("looking started %v", s)
			}
			sp := mustSpec(t, specNew)
			f.onStart = func() {
				f.set(specNew, func(r *builder.Result) { r.Spec, r.State, r.Position = sp, builder.StateQueued, 2 })
			}
			tab.Click("#build")
			tab.UntilText("#sentence", "position 2")
			f.set(specNew, func(r *builder.Result) { r.State, r.Position, r.Started = builder.StateBuilding, 0, time.Now() })
			tab.UntilText("#sentence", "Being built")
			f.set(specNew, func(r *builder.Result) {
				r.State, r.Sum, r.Size, r.LogID = builder.StateSuccess, sumDone, 6_000_000, 21
			})
			tab.UntilText("#sentence", "Built")
			tab.UntilText("#result", "record 21")
			if s := f.starts(); len(s) != 1 {
				t.Errorf("started %v", s)
			}
			for _, c := range tab.Console() {
				t.Errorf("the browser complains: %s", c)
			}
		})
	}
}

func TestBrowserAccessibility(t *testing.T) {
	tab := webtest.New(t)
	_, h := newFake(t, Config{Metrics: true, Base: "https://build.example.org"})
	srv := httptest.NewServer(h)
	defer webtest.Close(srv)
	pages := map[string]string{}
	for name, path := range map[string]string{"home": "/", "built": "/" + specDone, "failed": "/" + specBad, "building": "/" + specNow, "new": "/" + specNew, "module": "/module"} {
		pages[name] = srv.URL + path
	}
	tab.Check("builder", pages)
}
