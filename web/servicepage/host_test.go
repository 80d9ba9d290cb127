package servicepage

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web/webtest"
)

func hostServices() (*engine, []Service) {
	good, dead, busy := newEngine(), newFake(), newEngine()
	good.st.Code, good.st.Summary, good.st.Plan.Candidate, good.st.Events = supervisor.CodeCurrent, "Up to date.", nil, nil
	dead.err = errors.New("upkeep does not run: nobody listens on /srv/mail/control.sock")
	return busy, []Service{{Name: "calendar", Controller: busy}, {Name: "mail", Controller: dead}, {Name: "a b", Controller: good}, {Name: "a/b", Controller: good}}
}

func TestHost(t *testing.T) {
	busy, services := hostServices()
	h := NewHost(Config{}, services)
	body := get(t, h, "/").Body.String()
	for _, want := range []string{"2 of 4 services up to date", "Update to v1.4.2 in 6 hours", "its supervisor does not answer", "nobody listens on /srv/mail",
		`href="/s/calendar/"`, `href="/s/a-b/"`, `href="/s/a-b-2/"`, `action="/s/calendar/action"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the front page lacks %q:\n%s", want, body)
		}
	}
	var list struct {
		Services []struct{ Name, Error string }
	}
	if err := json.Unmarshal(get(t, h, "/api/v1/services").Body.Bytes(), &list); err != nil || len(list.Services) != 4 || list.Services[1].Error == "" {
		t.Errorf("%v %+v", err, list)
	}
	sub := get(t, h, "/s/calendar/").Body.String()
	for _, want := range []string{`action="/s/calendar/action"`, `href="/s/calendar/history"`, `data-live="/s/calendar/events"`} {
		if !strings.Contains(sub, want) {
			t.Errorf("the service's page lacks %q", want)
		}
	}
	for _, bad := range []string{`action="/action"`, `href="/history"`, `href="/log"`} {
		if strings.Contains(sub, bad) {
			t.Errorf("the service's page has %q", bad)
		}
	}
	for path, code := range map[string]int{"/s/calendar/history": 200, "/s/a-b/log": 200, "/s/mail/": 503, "/s/none/": 404, "/s/calendar/api/v1/status": 200, "/nothing": 404} {
		if w := get(t, h, path); w.Code != code {
			t.Errorf("%s: status %d, want %d", path, w.Code, code)
		}
	}
	w := send(t, h, post("/s/calendar/action", url.Values{"verb": {"pause"}}))
	if w.Code != 303 || w.Header().Get("Location") != "/s/calendar/" || len(busy.fake.done()) != 1 {
		t.Errorf("status %d to %q, done %v", w.Code, w.Header().Get("Location"), busy.fake.done())
	}
	r := post("/s/calendar/action", url.Values{"verb": {"update"}})
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if w := send(t, h, r); w.Code != 403 {
		t.Errorf("from another site: status %d", w.Code)
	}
}

func TestBrowserHost(t *testing.T) {
	tab := webtest.New(t)
	busy, services := hostServices()
	srv := httptest.NewServer(NewHost(Config{}, services))
	defer webtest.Close(srv)
	tab.Go(srv.URL + "/")
	tab.UntilText("#connection", "Live")
	tab.Click(`form[action="/s/calendar/action"] button`)
	tab.UntilText("ol.steps .now", "download") // on the service's own page
	tab.Go(srv.URL + "/")
	tab.UntilText("#services", "63 % of 6.1 MB")
	tab.Click("#more-calendar summary")
	tab.Click("#more-calendar button[value=hold]")
	tab.UntilText("#top", "On hold")
	tab.Go(srv.URL + "/")
	tab.Click("#more-calendar summary")
	tab.UntilText("#more-calendar", "Release the hold")
	tab.UntilText("#more-calendar", "Cancel the update")
	tab.UntilText("#more-a-b", "Upgrade upkeep now")
	tab.UntilText("#connection", "Live")
	for range 6 {
		busy.step(t)
	}
	tab.UntilText("#sentence", "3 of 4 services up to date")
	noErrors(t, tab)
	for _, v := range tab.Axe() {
		t.Error(v)
	}
	tab.Shot("host")
}
