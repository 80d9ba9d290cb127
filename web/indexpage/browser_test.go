package indexpage

import (
	"net/http/httptest"
	"testing"

	"example.org/upkeep/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

func TestBrowserIndex(t *testing.T) {
	tab := webtest.New(t)
	h := New(Config{Zone: "l.upkeep.test.", Server: "192.0.2.1:53", Anchor: "/etc/upkeep/anchor.keys", LogName: "sum.golang.org"}, fakeIndex{})
	srv := httptest.NewServer(h)
	defer srv.Close()
	tab.NoScript()
	tab.Go(srv.URL + "/")
	tab.Type("#module", "https://github.com/mjl-/mox/")
	tab.Click("form[role=search] button")
	tab.UntilText("#dig", "mox.mjl_2d._.github.com.v0.l.upkeep.test.")
	for _, c := range tab.Console() {
		t.Errorf("the browser complains: %s", c)
	}
}

func TestBrowserAccessibility(t *testing.T) {
	tab := webtest.New(t)
	h := New(Config{Zone: "l.upkeep.test.", Server: "192.0.2.1:53", Anchor: "/etc/upkeep/anchor.keys", LogName: "sum.golang.org"}, fakeIndex{})
	srv := httptest.NewServer(h)
	defer srv.Close()
	pages := map[string]string{}
	for name, path := range map[string]string{"start": "/", "module": "/module/github.com/mjl-/mox", "not-found": "/module/example.org/none"} {
		pages[name] = srv.URL + path
	}
	tab.Check("index", pages)
}
