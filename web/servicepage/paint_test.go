package servicepage

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/web/webtest"
)

// held serves the pages, and every script only when the channel is closed.
func held(t testing.TB, scripts <-chan struct{}) string {
	t.Helper()
	e := newEngine()
	updating(&e.st, time.Now()) // the page with most on it
	pages := New(Config{Builder: "https://build.example.org", Metrics: http.NotFoundHandler()}, e)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".js") {
			select {
			case <-scripts:
			case <-r.Context().Done():
				return
			}
		}
		pages.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { webtest.Close(srv) })
	return srv.URL + "/"
}

const painted = `performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0`

// The first paint needs no script: the page is there, with its content, while
// the script has not arrived. And what it loads is small.
func TestBrowserFirstPaint(t *testing.T) {
	tab := webtest.New(t)
	scripts := make(chan struct{})
	url := held(t, scripts)
	tab.Start(url)
	tab.Until(painted + " > 0")
	tab.UntilText("#sentence", "Updating to v1.4.2")
	tab.UntilText("ol.steps .now", "download")
	if state := webtest.Eval[string](tab, `document.readyState`); state == "complete" {
		t.Error("the script has arrived, so this test shows nothing")
	}
	close(scripts)
	tab.UntilText("#connection", "Live")
	noErrors(t, tab)
	var sizes struct{ Page, All float64 }
	sizes.Page = webtest.Eval[float64](tab, `performance.getEntriesByType("navigation")[0].decodedBodySize`)
	sizes.All = sizes.Page + webtest.Eval[float64](tab, `performance.getEntriesByType("resource").filter(r => r.name.includes("/static/")).reduce((n, r) => n + r.decodedBodySize, 0)`)
	t.Logf("page %.0f bytes, with style, script and icon %.0f bytes, uncompressed", sizes.Page, sizes.All)
	if sizes.Page > 50_000 || sizes.All > 75_000 || sizes.All < sizes.Page+10_000 {
		t.Errorf("page %.0f bytes, with style, script and icon %.0f bytes", sizes.Page, sizes.All)
	}
}

// Every page of a supervisor is below 50 kB, the service's log lines left out.
func TestPageSizes(t *testing.T) {
	f := newFake()
	updating(&f.st, time.Now())
	h := New(Config{Builder: "https://build.example.org", Metrics: http.NotFoundHandler(), Settings: &fakeSettings{text: goodSettings}}, f)
	log := regexp.MustCompile(`(?s)<pre class="log.*?</pre>`)
	for _, path := range []string{"/", "/history", "/log", "/config", "/schedule?version=v1.4.2"} {
		w := get(t, h, path)
		if n := len(log.ReplaceAll(w.Body.Bytes(), nil)); w.Code != 200 || n > 50_000 || n < 1000 {
			t.Errorf("%s: status %d, %d bytes without the log", path, w.Code, n)
		}
	}
}

// How long after the start of the navigation the first content is painted.
func BenchmarkFirstPaint(b *testing.B) {
	scripts := make(chan struct{})
	close(scripts)
	tab := webtest.New(b)
	url := held(b, scripts)
	total := 0.0
	for b.Loop() {
		tab.Go(url)
		tab.Until(painted + " > 0")
		total += webtest.Eval[float64](tab, painted)
	}
	b.ReportMetric(total/float64(b.N), "ms-to-first-paint")
}
