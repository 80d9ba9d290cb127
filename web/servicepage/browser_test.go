package servicepage

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web/login"
	"example.org/upkeep/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

// An engine is a fake that does what it is asked for, one step each time the
// test says so.
type engine struct {
	*fake
	steps chan struct{}
	done  chan struct{}
}

func newEngine() *engine {
	e := &engine{fake: newFake(), steps: make(chan struct{}), done: make(chan struct{})}
	e.act = func(a supervisor.Action) {
		switch a.Verb {
		case supervisor.VerbUpdate:
			if a.Self {
				go e.updateSelf()
				return
			}
			go e.update()
		case supervisor.VerbSchedule:
			e.change(func(st *supervisor.Status) {
				st.Scheduled = &supervisor.Scheduled{Pair: supervisor.Pair{Version: a.Version, GoVersion: a.GoVersion}, At: a.At, By: a.By}
			})
		case supervisor.VerbCancel:
			e.change(func(st *supervisor.Status) { st.Scheduled = nil })
		case supervisor.VerbHold:
			e.change(func(st *supervisor.Status) { st.Hold, st.HoldBy = true, a.By })
		case supervisor.VerbUnhold:
			e.change(func(st *supervisor.Status) { st.Hold = false })
		case supervisor.VerbPause:
			e.change(func(st *supervisor.Status) { st.Paused, st.PausedBy = true, a.By })
		case supervisor.VerbSkip:
			e.change(func(st *supervisor.Status) {
				st.Skips = append(st.Skips, supervisor.Skip{Pair: supervisor.Pair{Version: a.Version}, Why: "skipped on the page", By: a.By})
			})
		case supervisor.VerbRollback:
			if a.Self {
				e.change(func(st *supervisor.Status) { st.Self.Version = a.Version })
				return
			}
			e.change(func(st *supervisor.Status) { st.Service.Version = a.Version; st.Summary = "Up to date." })
		}
	}
	return e
}

// update goes through the steps of an update.
func (e *engine) update() {
	defer close(e.done)
	e.change(func(st *supervisor.Status) { updating(st, time.Now()) })
	names := []string{"verify", "stop", "switch", "start", "probation"}
	for i, name := range names {
		<-e.steps
		e.change(func(st *supervisor.Status) {
			u := *st.Update
			u.Step, u.Percent, u.Detail, u.StepFrom = name, 0, "", time.Now()
			u.Steps = slices.Clone(u.Steps)
			for j := range u.Steps {
				u.Steps[j].Done, u.Steps[j].Now = j < i+3, j == i+3
			}
			u.Log = append(slices.Clone(u.Log), "now: "+name)
			st.Update = &u
		})
	}
	<-e.steps
	e.change(func(st *supervisor.Status) {
		to := st.Update.To
		st.Update, st.Plan.Candidate = nil, nil
		st.Code, st.Summary = supervisor.CodeCurrent, "Up to date."
		st.Service.Version, st.Service.Since = to.Version, time.Now()
	})
}

// updateSelf goes through the steps of an update of upkeep itself.
func (e *engine) updateSelf() {
	defer close(e.done)
	names := []string{"download", "verify", "trial", "takeover"}
	for i, name := range names {
		e.change(func(st *supervisor.Status) {
			u := &supervisor.UpdateProgress{ID: "5", Kind: kindSelfUpdate, From: supervisor.Pair{Version: st.Self.Version, GoVersion: st.Self.GoVersion},
				To: st.Self.Plan.Versions[0].Pair, By: "web", Step: name, Started: time.Now(), StepFrom: time.Now()}
			for j, n := range names {
				u.Steps = append(u.Steps, supervisor.Step{Name: n, Done: j < i, Now: j == i})
			}
			st.Self.Update = u
		})
		<-e.steps
	}
	e.change(func(st *supervisor.Status) {
		plan := *st.Self.Plan
		plan.Candidate = nil
		st.Self.Version, st.Self.Update, st.Self.Plan = st.Self.Update.To.Version, nil, &plan
	})
}

func (e *engine) step(t *testing.T) {
	t.Helper()
	select {
	case e.steps <- struct{}{}:
	case <-time.After(2 * time.Minute):
		t.Fatal("the update is not under way")
	}
}

const testPassword = "correct horse battery"

// serve serves the pages, behind a login if wanted.
func serve(t *testing.T, e supervisor.Controller, withLogin bool) (string, *login.Gate) {
	t.Helper()
	cfg := Config{Builder: "https://build.example.org", Metrics: http.NotFoundHandler()}
	if withLogin {
		file := filepath.Join(t.TempDir(), "access.json")
		var a login.Access
		if err := a.SetUser("admin", testPassword); err != nil {
			t.Fatal(err)
		}
		if err := a.Write(file); err != nil {
			t.Fatal(err)
		}
		g, err := login.New(login.Config{File: file, Program: "upkeep"})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Login = g
	}
	srv := httptest.NewServer(New(cfg, e))
	t.Cleanup(func() { webtest.Close(srv) })
	return srv.URL, cfg.Login
}

func noErrors(t *testing.T, tabs ...*webtest.Tab) {
	t.Helper()
	for _, tab := range tabs {
		for _, text := range tab.Console() {
			t.Errorf("the browser complains: %s", text)
		}
	}
}

// Log in, upgrade with one click, watch the steps in two tabs.
func TestBrowserUpgrade(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, true)
	tab.Go(url + "/")
	tab.UntilText("h1", "Log in")
	tab.Shot("login")
	tab.Type("#name", "admin")
	tab.Type("#password", "not the password")
	tab.Click("#login")
	tab.UntilText("#problem", "not right")
	tab.Type("#name", "admin")
	tab.Type("#password", testPassword)
	tab.Click("#login")
	tab.UntilText("#sentence", "Update to v1.4.2")
	tab.UntilText("#connection", "Live")

	second := tab.Second()
	second.Go(url + "/")
	second.UntilText("#sentence", "Update to v1.4.2")
	second.UntilText("#connection", "Live")

	tab.Click("#upgrade")
	for _, x := range []*webtest.Tab{tab, second} {
		x.UntilText("#sentence", "Updating")
		x.UntilText("#update", "63 % of 6.1 MB")
		x.UntilText("#announce", "downloading")
	}
	if a := e.fake.done(); len(a) != 1 || a[0].Verb != "update" || a[0].Version != "v1.4.2" || a[0].By != "admin" {
		t.Errorf("asked for: %+v", a)
	}
	for _, name := range []string{"verify", "stop", "switch", "start", "probation"} {
		e.step(t)
		for _, x := range []*webtest.Tab{tab, second} {
			x.UntilText("ol.steps .now", name)
			x.UntilText("#update-log", "now: "+name)
			x.UntilText("#announce", name)
		}
	}
	// A third viewer in the middle sees the same.
	third := tab.Second()
	third.Go(url + "/")
	third.UntilText("ol.steps .now", "probation")
	e.step(t)
	for _, x := range []*webtest.Tab{tab, second, third} {
		x.UntilText("#sentence", "Up to date")
		x.UntilText("#running-version", "v1.4.2")
		x.Until(`document.title.startsWith("Up to date")`)
	}
	<-e.done
	noErrors(t, second, third)
	// The wrong password is an answer that the browser writes down as an error.
	if c := tab.Console(); len(c) != 1 || !strings.Contains(c[0], "401") {
		t.Errorf("console: %q", c)
	}
}

// Without JavaScript the same click works, and the page reloads by itself.
func TestBrowserWithoutScript(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, true)
	tab.NoScript()
	tab.Go(url + "/history")
	tab.Type("#name", "admin")
	tab.Type("#password", testPassword)
	tab.Click("#login")
	tab.UntilText("h1", "History")
	tab.Go(url + "/")
	tab.Click("#upgrade")
	tab.UntilText("ol.steps .now", "download")
	e.step(t)
	tab.UntilText("ol.steps .now", "verify") // nothing but the page's own reload brings this
	for range 5 {
		e.step(t)
	}
	tab.UntilText("#sentence", "Up to date")
	tab.UntilText("#running-version", "v1.4.2")
	noErrors(t, tab)
}

// Upkeep's own update is one click as well, with its steps, while the service
// and its version stay as they are.
func TestBrowserUpgradeSelf(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, false)
	tab.Go(url + "/")
	tab.UntilText("#connection", "Live")
	tab.UntilText("#self-version", "v0.3.0")
	tab.Click("#self-upgrade")
	for _, name := range []string{"download", "verify", "trial", "takeover"} {
		tab.UntilText("#self-step", name)
		tab.UntilText("ol.steps .now", name)
		tab.UntilText("#announce", "upkeep itself: "+name)
		if name == "trial" {
			tab.Go(url + "/") // a reload sees the same
			tab.UntilText("#self-step", name)
			tab.UntilText("#connection", "Live")
		}
		e.step(t)
	}
	tab.UntilText("#self-version", "v0.3.1")
	tab.UntilText("#running-version", "v1.4.1")
	<-e.done
	if a := e.fake.done(); len(a) != 1 || !a[0].Self || a[0].Verb != supervisor.VerbUpdate || a[0].Version != "v0.3.1" {
		t.Errorf("asked for %+v", a)
	}
	tab.Click("#self-rollback")
	tab.UntilText("h1", "Take upkeep itself back to v0.2.9?")
	tab.Click("#confirm")
	tab.UntilText("#self-version", "v0.2.9")
	if a := e.fake.done(); len(a) != 2 || !a[1].Self || a[1].Verb != supervisor.VerbRollback || a[1].Version != "v0.2.9" {
		t.Errorf("asked for %+v", a)
	}
	noErrors(t, tab)
}

// A person picks a time, in their own zone; without JavaScript in UTC.
func TestBrowserSchedule(t *testing.T) {
	for _, script := range []bool{true, false} {
		tab := webtest.New(t)
		e := newEngine()
		url, _ := serve(t, e, false)
		want := time.Date(2030, 7, 1, 4, 30, 0, 0, time.UTC)
		if script {
			want = want.Add(-2 * time.Hour) // summer in Amsterdam
		} else {
			tab.NoScript()
		}
		tab.Go(url + "/")
		tab.Click("#schedule")
		tab.UntilText("h1", "Schedule v1.4.2")
		if script {
			tab.UntilText("[data-zone]", "Europe/Amsterdam")
			for _, v := range tab.Axe() {
				t.Error(v)
			}
		} else {
			tab.UntilText("[data-zone]", "in UTC")
		}
		tab.Fill("#local", "2030-07-01T04:30")
		tab.Click("#confirm")
		tab.UntilText("#scheduled", "v1.4.2")
		if script {
			tab.Until(`document.querySelector("#scheduled time:not([data-ago])").textContent.includes("4:30")`)
		}
		a := e.fake.done()
		if len(a) != 1 || a[0].Verb != supervisor.VerbSchedule || !a[0].At.Equal(want) || a[0].Version != "v1.4.2" || a[0].GoVersion != "go1.26.8" {
			t.Errorf("script %v: asked for %+v, want %v", script, a, want)
		}
		tab.Click("#unschedule")
		tab.Until(`!document.querySelector("#scheduled")`)
		// Against the policy: asked once more, with the time kept.
		tab.Go(url + "/schedule?version=v2.0.0&go_version=go1.26.8")
		tab.Fill("#local", "2030-07-01T04:30")
		tab.Click("#confirm")
		tab.UntilText("h1", "Install v2.0.0 nevertheless?")
		tab.Click("#confirm")
		tab.UntilText("#scheduled", "v2.0.0")
		if a := e.fake.done(); len(a) != 3 || !a[2].At.Equal(want) || a[2].Version != "v2.0.0" {
			t.Errorf("script %v: asked for %+v, want %v", script, a, want)
		}
		noErrors(t, tab)
	}
}

func TestBrowserActions(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, false)
	tab.Go(url + "/")
	tab.Click("#hold")
	tab.UntilText("#top", "On hold")
	tab.Click("#upgrade") // goes against the hold: asks first
	tab.UntilText("h1", "on hold")
	tab.Go(url + "/")
	tab.Click("#unhold")
	tab.Until(`!document.querySelector("#top").textContent.includes("On hold")`)
	tab.Click("#pause")
	tab.UntilText("#top", "Updates are paused")
	tab.Click(`[id="menu-v1.4.2-go1.26.8"] summary`)
	tab.Click(`[id="menu-v1.4.2-go1.26.8"] button[value=skip]`)
	tab.UntilText("#facts", "skipped on the page")
	tab.Click("#rollback")
	tab.UntilText("h1", "Go back to v1.4.0?")
	tab.Shot("confirm")
	if slices.ContainsFunc(e.fake.done(), func(a supervisor.Action) bool { return a.Verb == "rollback" }) {
		t.Error("rolled back without a confirmation")
	}
	tab.Click("#confirm")
	tab.UntilText("#running-version", "v1.4.0")
	var verbs []string
	for _, a := range e.fake.done() {
		verbs = append(verbs, a.Verb)
	}
	if want := []string{"hold", "unhold", "pause", "skip", "rollback"}; !slices.Equal(verbs, want) {
		t.Errorf("asked for %v, want %v", verbs, want)
	}
	e.mu.Lock()
	e.refuse = "an update is under way"
	e.mu.Unlock()
	tab.Click("#check")
	tab.UntilText("main", "an update is under way")
}

// The keyboard alone is enough, and the focus stays where it is when the page
// is brought up to date.
func TestBrowserKeyboard(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, false)
	tab.Go(url + "/")
	tab.UntilText("#connection", "Live")
	tab.Key(kb.Tab)
	if got := tab.Text(":focus"); got != "Skip to the content" {
		t.Errorf("the first stop is %q", got)
	}
	for range 30 {
		if webtest.Eval[string](tab, `document.activeElement.id`) == "upgrade" {
			break
		}
		tab.Key(kb.Tab)
	}
	e.change(func(st *supervisor.Status) {
		c := *st.Plan.Candidate
		c.Why = "Changed meanwhile."
		st.Plan.Candidate = &c
	})
	tab.UntilText("#plan", "Changed meanwhile.")
	if got := webtest.Eval[string](tab, `document.activeElement.id`); got != "upgrade" {
		t.Fatalf("the focus is on %q", got)
	}
	tab.Key(kb.Enter)
	tab.UntilText("ol.steps .now", "download")
	for range 6 {
		e.step(t)
	}
	<-e.done
	noErrors(t, tab)
}

// Times are in the viewer's zone, with the exact time on hover.
func TestBrowserTimes(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	at := time.Date(2026, 7, 1, 22, 30, 15, 0, time.UTC) // 2 July, 00:30 in Amsterdam
	e.st.Service.Since = at
	url, _ := serve(t, e, false)
	tab.Go(url + "/")
	tab.Until(`document.querySelector('time[datetime="2026-07-01T22:30:15Z"]')?.textContent.match(/2 Jul|Jul 2/)`)
	if title := webtest.Eval[string](tab, `document.querySelector('time[datetime="2026-07-01T22:30:15Z"]').title`); !strings.Contains(title, "2026-07-01T22:30:15Z") {
		t.Errorf("on hover: %q", title)
	}
	noErrors(t, tab)
}

// Progress does not make the page jump.
func TestBrowserNoJumps(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	updating(&e.st, time.Now())
	url, _ := serve(t, e, false)
	tab.Go(url + "/")
	tab.UntilText("#connection", "Live")
	webtest.Eval[any](tab, `window.shift = 0; new PerformanceObserver(l => { for (const s of l.getEntries()) window.shift += s.value; }).observe({type: "layout-shift"}); null`)
	for i := range 6 {
		e.change(func(st *supervisor.Status) {
			u := *st.Update
			u.Percent, u.Detail = 70+i, fmt.Sprintf("%d %% of 6.1 MB", 70+i)
			if i == 3 {
				u.Percent, u.Detail, u.Step = 0, "", "verify"
			}
			st.Update = &u
		})
		if i == 3 {
			tab.UntilText("#step", "verify")
		} else {
			tab.UntilText("#update", fmt.Sprintf("%d %% of", 70+i))
		}
	}
	if shift := webtest.Eval[float64](tab, `window.shift`); shift > 0.001 {
		t.Errorf("the layout shifted by %g", shift)
	}
}

// After the end of a session the live page leads to the login.
func TestBrowserExpiredSession(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, true)
	tab.Go(url + "/")
	tab.Type("#name", "admin")
	tab.Type("#password", testPassword)
	tab.Click("#login")
	tab.UntilText("#connection", "Live")
	second := tab.Second()
	second.Go(url + "/")
	second.UntilText("#connection", "Live")
	second.Click("form.user button")
	second.UntilText("h1", "Log in")
	e.change(func(st *supervisor.Status) { st.Summary = "Something new." })
	tab.UntilText("h1", "Log in")
	if strings.Contains(tab.Text("body"), "Something new") {
		t.Error("the page shows news after the end of the session")
	}
}

// A form on another site's page, and a foreign name that leads here.
func TestBrowserOtherSites(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, false)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/frame" {
			fmt.Fprintf(w, `<p>frame</p><iframe src="%s/"></iframe>`, url)
			return
		}
		fmt.Fprintf(w, `<form method="post" action="%s/action"><input name="verb" value="update"><button id="go">Win a prize</button></form>
<form method="post" enctype="text/plain" action="%s/api/v1/actions"><input name='{"verb":"update","x":"' value='"}'><button id="api">Win another</button></form>`, url, url)
	}))
	defer evil.Close()
	for _, host := range []string{"127.0.0.1", "localhost", webtest.EvilHost} {
		from := strings.Replace(evil.URL, "127.0.0.1", host, 1)
		for _, button := range []string{"#go", "#api"} {
			tab.Go(from)
			tab.Click(button)
			tab.UntilText("body", "another site's page")
		}
	}
	tab.Go(strings.Replace(url, "127.0.0.1", webtest.EvilHost, 1) + "/")
	tab.UntilText("body", "is not a name of this server")
	if a := e.fake.done(); len(a) != 0 {
		t.Errorf("done: %+v", a)
	}
	// A page in a frame of another site is not shown.
	tab.Go(evil.URL + "/frame")
	tab.UntilConsole("frame")
}

// No accessibility rule of axe-core is broken on any page, in any view.
func TestBrowserAccessibility(t *testing.T) {
	tab := webtest.New(t)
	e := newEngine()
	url, _ := serve(t, e, false)
	busy := newEngine()
	updating(&busy.st, time.Now())
	busyURL, _ := serve(t, busy, false)
	loginURL, _ := serve(t, e, true)
	tab.Check("supervisor", map[string]string{
		"overview": url + "/", "updating": busyURL + "/", "history": url + "/history", "log": url + "/log",
		"not-found": url + "/nothing", "login": loginURL + "/login",
	})
	// 200 % zoom of a small window is a window of half the width.
	tab.View("light", 320)
	tab.Go(busyURL + "/")
	if wide := webtest.Eval[int](tab, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
		t.Errorf("at 320 pixels the page is %d pixels wider than the window", wide)
	}
}
