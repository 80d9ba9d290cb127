package servicepage

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web/webtest"
)

type fakeSettings struct {
	text  string
	saved int
}

func (f *fakeSettings) File() string { return "/etc/upkeep/hello.toml" }

func (f *fakeSettings) Read() (string, []Setting, error) {
	return f.text, []Setting{{"updates.policy", `"minor"`, "file", "What is installed by itself."}, {"updates.keep", "2", "default", "How many."}}, nil
}

func (f *fakeSettings) Check(text string) []Problem {
	for i, line := range strings.Split(text, "\n") {
		if strings.Contains(line, "polcy") {
			return []Problem{{Line: i + 1, Column: 1, Text: "key updates.polcy is not known; did you mean updates.policy?"}}
		}
	}
	return nil
}

func (f *fakeSettings) Save(text string) error {
	f.text, f.saved = text, f.saved+1
	return nil
}

const goodSettings = "[updates]\npolicy = \"minor\"\n"

func TestSettingsRights(t *testing.T) {
	set := &fakeSettings{text: goodSettings}
	// Without a login, or without the operator's consent, it is only shown.
	for _, edit := range []bool{false, true} {
		h := New(Config{Settings: set, EditSettings: edit}, newFake())
		w := get(t, h, "/config")
		if w.Code != 200 || strings.Contains(w.Body.String(), "<textarea") || !strings.Contains(w.Body.String(), "policy = &#34;minor&#34;") {
			t.Errorf("edit %v: status %d:\n%s", edit, w.Code, w.Body)
		}
		form := url.Values{"text": {"x"}, "mark": {mark(goodSettings)}, "do": {"save"}}
		if w := send(t, h, post("/config", form)); w.Code != 403 {
			t.Errorf("edit %v: status %d", edit, w.Code)
		}
	}
	if w := get(t, New(Config{}, newFake()), "/config"); w.Code != 404 {
		t.Errorf("without settings: status %d", w.Code)
	}
	if set.saved != 0 {
		t.Error("saved")
	}
}

// Edit, with a mistake, with a change by somebody else, and well.
func TestBrowserSettings(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	set := &fakeSettings{text: goodSettings}
	// The login of serve, with settings besides.
	_, gate := serve(t, e, true)
	srv := httptest.NewServer(New(Config{Settings: set, EditSettings: true, Login: gate, Metrics: http.NotFoundHandler()}, e))
	defer srv.Close()
	tab.Go(srv.URL + "/config")
	tab.Type("#name", "admin")
	tab.Type("#password", testPassword)
	tab.Click("#login")
	tab.UntilText("h1", "Configuration")
	if got := webtest.Eval[string](tab, `document.querySelector("#text").value`); got != goodSettings {
		t.Errorf("the form has %q", got)
	}
	for _, v := range tab.Axe() {
		t.Error(v)
	}
	tab.Shot("config")
	tab.Fill("#text", "[updates]\npolcy = \"minor\"\n")
	tab.Click("#save")
	tab.UntilText("#problems", "Line 2, column 1: ")
	tab.UntilText("#problems", "did you mean updates.policy?")
	tab.UntilText("#problems", `polcy = "minor"`)
	tab.Shot("config-error")
	if set.saved != 0 {
		t.Fatal("a mistake was saved")
	}
	tab.Fill("#text", "[updates]\npolicy = \"patch\"\n")
	tab.Click("#check")
	tab.UntilText("#done", "No mistakes")
	set.text += "# by somebody else\n"
	tab.Click("#save")
	tab.UntilText("#problems", "changed by somebody else")
	tab.Go(srv.URL + "/config")
	tab.Fill("#text", "[updates]\npolicy = \"patch\"\n")
	tab.Click("#save")
	tab.UntilText("#done", "Saved and in force")
	if set.saved != 1 || set.text != "[updates]\npolicy = \"patch\"\n" {
		t.Errorf("saved %d times: %q", set.saved, set.text)
	}
	if a := e.fake.done(); len(a) != 1 || a[0].Verb != supervisor.VerbReload || a[0].By != "admin" {
		t.Errorf("asked for %+v", a)
	}
}
