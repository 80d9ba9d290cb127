// Package webtest drives a real Chromium in the tests of the pages.
//
// It is for tests only; no program imports it. Without a browser the tests are
// skipped, unless the environment variable UPKEEP_TEST_FULL is 1, when they
// fail. The browser is started once for each test binary; every [Tab] has
// cookies of its own.
package webtest

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

//go:embed testdata/axe/axe.min.js
var axe string

// EvilHost is a name that the browser resolves to this machine, as an attacker
// would arrange it.
const EvilHost = "evil.example"

// patience is how long a page may take to become as expected. It is very generous
// since test machines are busy; nothing waits longer than it has to.
const patience = 2 * time.Minute

var shared struct {
	once sync.Once
	ctx  context.Context
	err  error
}

// start returns the browser for all tests of the binary.
func start() (context.Context, error) {
	shared.once.Do(func() {
		path := ""
		for _, name := range []string{os.Getenv("UPKEEP_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
			if p, err := exec.LookPath(name); name != "" && err == nil {
				path = p
				break
			}
		}
		if path == "" {
			shared.err = fmt.Errorf("no Chromium: install the package chromium, or name its program in UPKEEP_CHROMIUM")
			return
		}
		opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WSURLReadTimeout(patience),
			chromedp.Flag("host-resolver-rules", "MAP "+EvilHost+" 127.0.0.1"), chromedp.Env("TZ=Europe/Amsterdam", "LANG=en_GB.UTF-8"))
		if os.Geteuid() == 0 {
			opts = append(opts, chromedp.NoSandbox) // Chromium's own does not work for root
		}
		ctx, _ := chromedp.NewExecAllocator(context.Background(), opts...)
		ctx, _ = chromedp.NewContext(ctx)
		shared.ctx, shared.err = ctx, chromedp.Do(ctx)
	})
	return shared.ctx, shared.err
}

// Main runs the tests of a package and ends the browser, if one was started.
func Main(m *testing.M) {
	code := m.Run()
	if shared.ctx != nil {
		ended := make(chan struct{})
		go func() {
			_ = chromedp.Cancel(shared.ctx) // at the end, nothing follows
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(patience): // it dies with this process
		}
	}
	os.Exit(code)
}

// A Tab is one tab, with cookies of its own unless it is a [Tab.Second].
type Tab struct {
	t   testing.TB
	ctx context.Context

	bypass bool // of the page's policy, for axe

	mu      sync.Mutex
	console []string // errors and violations
}

// New opens a tab.
func New(t testing.TB) *Tab {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser is not for short tests")
	}
	parent, err := start()
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return open(t, parent, chromedp.WithNewBrowserContext())
}

// Second opens another tab with the cookies of this one.
func (tab *Tab) Second() *Tab {
	tab.t.Helper()
	return open(tab.t, tab.ctx)
}

func open(t testing.TB, parent context.Context, opts ...chromedp.ContextOption) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, opts...)
	tab := &Tab{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == "error" || m.IsException() {
				tab.mu.Lock()
				tab.console = append(tab.console, m.Source+": "+m.Text)
				tab.mu.Unlock()
			}
		}
	}()
	t.Cleanup(cancel)
	tab.View("light", 1100)
	return tab
}

// Console returns the errors that the page has caused so far.
func (tab *Tab) Console() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return append([]string(nil), tab.console...)
}

// UntilConsole waits for an error with a text in it.
func (tab *Tab) UntilConsole(text string) {
	tab.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // the messages come in their own time
		all := strings.Join(tab.Console(), "\n")
		if strings.Contains(all, text) {
			return
		}
		if time.Now().After(end) {
			tab.t.Fatalf("no complaint about %q: %s", text, all)
		}
	}
}

// where says for a message what the page shows, if it answers soon.
func (tab *Tab) where(expression string) string {
	ctx, cancel := context.WithTimeout(tab.ctx, 10*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](expression)) // for the message only
	return text
}

func (tab *Tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	tab.try(func(error) bool { return false }, what, steps...)
}

// try does steps, and does them again after some errors.
func (tab *Tab) try(again func(error) bool, what string, steps ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	err := chromedp.Do(ctx, steps...)
	for err != nil && ctx.Err() == nil && again(err) {
		err = chromedp.Do(ctx, steps...)
	}
	if err != nil {
		tab.t.Fatalf("%s: %v at %s", what, err, tab.where("location.href + ' ' + document.documentElement.outerHTML.slice(0, 300)"))
	}
}

// call runs commands of the browser for this tab.
func call(tab *Tab, what string, f func(context.Context) error) {
	tab.t.Helper()
	tab.do(what, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error { return f(ctx) }))
}

// View sets the colour scheme and the width of the window.
func (tab *Tab) View(scheme string, width int64) {
	tab.t.Helper()
	call(tab, "setting the view", func(ctx context.Context) error {
		media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
			return err
		}
		_, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600})
		return err
	})
}

// NoScript turns JavaScript off.
func (tab *Tab) NoScript() {
	tab.t.Helper()
	call(tab, "turning scripts off", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
}

// Go opens an address and waits for the page.
func (tab *Tab) Go(url string) {
	tab.t.Helper()
	again := func(err error) bool {
		// Chromium gives up a page when an interface of the machine comes or goes, as
		// those of other tests do.
		return strings.Contains(err.Error(), "ERR_NETWORK_CHANGED")
	}
	tab.try(again, "opening "+url, chromedp.Navigate(url), chromedp.WaitReady(chromedp.CSS("body")))
}

// Start begins to open an address and does not wait for the page.
func (tab *Tab) Start(url string) {
	tab.t.Helper()
	Eval[any](tab, "location.href = "+quote(url)+"; null")
}

// Click clicks with the mouse on what a CSS selector finds.
func (tab *Tab) Click(css string) {
	tab.t.Helper()
	tab.do("clicking "+css, chromedp.Click(chromedp.CSS(css)))
}

// Type types into a field.
func (tab *Tab) Type(css, text string) {
	tab.t.Helper()
	tab.do("typing into "+css, chromedp.SendKeys(chromedp.CSS(css), text))
}

// Fill replaces what is in a field.
func (tab *Tab) Fill(css, text string) {
	tab.t.Helper()
	tab.do("filling "+css, chromedp.SetValue(chromedp.CSS(css), text))
}

// Key presses a key.
func (tab *Tab) Key(key string) {
	tab.t.Helper()
	tab.do("pressing a key", chromedp.KeyEvent(key))
}

// Eval evaluates a JavaScript expression in the page.
func Eval[T any](tab *Tab, expression string) T {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tab.t.Fatalf("evaluating %.80s: %v", expression, err)
	}
	return v
}

// Until waits for a JavaScript expression to become true, across page loads.
func (tab *Tab) Until(expression string) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		// An error is a page in between; the next look is at the new one.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")")); err == nil && ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tab.t.Fatalf("never true: %s\n%.3000s", expression, tab.where("location.href + ' ' + document.body.innerText"))
		}
	}
}

// UntilText waits until what a selector finds has a text in it.
func (tab *Tab) UntilText(css, text string) {
	tab.t.Helper()
	tab.Until(fmt.Sprintf("document.querySelector(%s)?.textContent.includes(%s)", quote(css), quote(text)))
}

// Text is what a reader sees of the element.
func (tab *Tab) Text(css string) string {
	tab.t.Helper()
	return Eval[string](tab, fmt.Sprintf("(document.querySelector(%s)?.innerText ?? '').trim()", quote(css)))
}

func quote(s any) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings are always JSON
	}
	return string(b)
}

// Axe reports the violations of axe-core's accessibility rules in the page; of
// the named rules only, if any are named.
func (tab *Tab) Axe(rules ...string) []string {
	tab.t.Helper()
	if !tab.bypass {
		// The page's policy allows nobody to add a script; a test may.
		call(tab, "setting the policy aside", func(ctx context.Context) error {
			_, err := chromedp.Call(ctx, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true})
			return err
		})
		tab.do("loading the page again", chromedp.Reload(), chromedp.WaitReady(chromedp.CSS("body")))
		tab.bypass = true
	}
	only := ""
	if len(rules) > 0 {
		only = fmt.Sprintf(`, runOnly: {type: "rule", values: %s}`, quote(rules))
	}
	Eval[any](tab, axe+";null")
	return Eval[[]string](tab, `axe.run(document, {resultTypes: ["violations"]`+only+`}).then(r => r.violations.flatMap(v =>
		v.nodes.map(n => v.impact + " " + v.id + ": " + v.help + ": " + n.html.slice(0, 200) + " | " + (n.failureSummary || "").replace(/\s+/g, " ").slice(0, 300))))`)
}

// Check reports what is wrong with each page for its readers: every rule of
// axe-core in the light view, contrast in the dark one, and in each view and
// on a phone whether the page fits the window. It keeps pictures.
func (tab *Tab) Check(program string, pages map[string]string) {
	tab.t.Helper()
	for _, view := range []struct {
		name, scheme string
		width        int64
	}{{"light", "light", 1100}, {"dark", "dark", 1100}, {"phone", "light", 360}} {
		tab.View(view.scheme, view.width)
		for name, address := range pages {
			tab.Go(address)
			var found []string
			switch view.name {
			case "light":
				found = tab.Axe()
			case "dark":
				found = tab.Axe("color-contrast")
			}
			for _, v := range found {
				tab.t.Errorf("%s, %s: %s", name, view.name, v)
			}
			if wide := Eval[int](tab, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
				tab.t.Errorf("%s, %s: the page is %d pixels wider than the window", name, view.name, wide)
			}
			tab.shot(program+"-"+name+"-"+view.name, view.name != "phone")
		}
	}
}

// Shot keeps a picture of the whole page, when UPKEEP_SCREENSHOTS names a folder.
func (tab *Tab) Shot(name string) {
	tab.t.Helper()
	tab.shot(name, true)
}

func (tab *Tab) shot(name string, whole bool) {
	tab.t.Helper()
	dir := os.Getenv("UPKEEP_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	take := chromedp.CaptureScreenshot()
	if whole {
		take = chromedp.FullScreenshot(100)
	}
	data, err := chromedp.Run(ctx, take)
	if err != nil {
		tab.t.Fatalf("taking a picture: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".png"), data, 0o644); err != nil {
		tab.t.Fatal(err)
	}
}
