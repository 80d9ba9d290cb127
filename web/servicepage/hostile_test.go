package servicepage

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"example.org/upkeep/supervisor"
)

// fill puts a text into every string below v, and something into all the rest.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), text)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Now()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	}
}

type hostileSettings struct{ text string }

func (s hostileSettings) File() string { return s.text }
func (s hostileSettings) Read() (string, []Setting, error) {
	return s.text, []Setting{{s.text, s.text, s.text, s.text}}, nil
}
func (s hostileSettings) Check(string) []Problem { return nil }
func (s hostileSettings) Save(string) error      { return nil }

// shape is a page without its texts and the values of its attributes.
func shape(t *testing.T, name, page string) string {
	t.Helper()
	var b strings.Builder
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return b.String()
		}
		tok := z.Token()
		if kind == html.TextToken || kind == html.CommentToken {
			continue
		}
		b.WriteString(kind.String() + " " + tok.Data)
		for _, a := range tok.Attr {
			b.WriteString(" " + a.Key)
			if a.Key != "href" && a.Key != "action" && a.Key != "src" {
				continue
			}
			// As a browser reads it: without control characters and spaces.
			seen := strings.Map(func(c rune) rune {
				if c <= ' ' || c == '\uFFFD' {
					return -1
				}
				return c
			}, a.Val)
			scheme, _, ok := strings.Cut(seen, ":")
			if ok && !strings.ContainsAny(scheme, "/?#") && scheme != "https" && scheme != "about" {
				t.Errorf("%s: <%s %s=%q>", name, tok.Data, a.Key, a.Val)
			}
		}
		b.WriteString("\n")
	}
}

// No text that comes from elsewhere changes what a page is made of, wherever
// it stands in a status, a log, a configuration or a request.
func TestHostileText(t *testing.T) {
	pages := func(text string) map[string]string {
		var st supervisor.Status
		fill(reflect.ValueOf(&st).Elem(), text)
		st.Plan.Candidate.Version = "v" + text // else it is the running one
		f := &fake{st: st, lines: []string{text, text}}
		h := New(Config{Builder: "https://build.example.org", ReleaseNotes: text + "{version}", Settings: hostileSettings{text}}, f)
		host := NewHost(Config{}, []Service{{Name: text, Controller: f}})
		q := url.Values{"version": {text}, "go_version": {text}, "q": {text}, "from": {text}, "verb": {"rollback"}}.Encode()
		got := map[string]string{}
		for name, path := range map[string]string{
			"overview": "/", "history": "/history", "search": "/history?" + q, "log": "/log", "configuration": "/config",
			"schedule": "/schedule?" + q, "changes": "/changes?" + q, "unknown": "/" + url.PathEscape(text),
		} {
			got[name] = get(t, h, path).Body.String()
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "http://localhost/action", strings.NewReader(q))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("%q: the question has status %d", text, w.Code)
		}
		got["question"] = w.Body.String()
		got["host"] = get(t, host, "/").Body.String()
		return got
	}
	want := map[string]string{}
	for name, page := range pages("plain") {
		want[name] = shape(t, name, page)
	}
	for _, text := range []string{
		"<script>alert(1)</script>", "</script><script>alert(1)//", `"><img src=x onerror=alert(1)>`, `' autofocus onfocus='alert(1)`,
		"javascript:alert(1)//", "JaVaScRiPt:alert(1)", "\x01javascript:alert(1)", "java\tscript:alert(1)", "data:text/html,x",
		"</textarea><b>", "</pre><b>", "</title><b>", "<!--", "-->", "]]>", "&lt;b&gt;", "{{.}}", "{ x }", "\x00\x1b[31m\r\n<b\x00>", "\xff<\xfe", "`${alert(1)}`",
	} {
		for name, page := range pages(text) {
			if got := shape(t, name, page); got != want[name] {
				t.Errorf("%q changes %s: %s", text, name, firstDifference(got, want[name]))
			}
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "got <" + g[i] + ">, want <" + w[i] + ">"
		}
	}
	return "it has another length"
}
