package web

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// unsafe is what a template must not have, since it goes past the escaping or
// puts script or style into a page.
var unsafe = map[string]*regexp.Regexp{
	"a function of templ":                 regexp.MustCompile(`templ\.[A-Za-z]+`),
	"a script or style of templ":          regexp.MustCompile(`(?m)^(script|css) `),
	"a style":                             regexp.MustCompile(`<style|\sstyle\??=`),
	"a script that is not our file":       regexp.MustCompile(`<script [^s]|<script>|<script src=[^{]`),
	"an event handler":                    regexp.MustCompile(`\son[a-z]+\??=`),
	"an address where none is checked":    regexp.MustCompile(`\s(srcset|formaction|poster|cite|background|ping|manifest|data|xlink:href|srcdoc)=\{`),
	"an image or script that is not ours": regexp.MustCompile(`\ssrc=\{ *[^s ]|\ssrc=\{ *s[^t]`),
	"an attribute with a computed name":   regexp.MustCompile(`\s\{[^}]*\}=|\.\.\. \}`),
}

// checked are the elements whose addresses templ checks.
var checked = map[string]bool{"a href": true, "link href": true, "form action": true}

var addressRE = regexp.MustCompile(`<([a-z][a-z0-9]*)[^<>]*?\s(href|action)=\{`)

// mistakes returns what is unsafe in a template.
func mistakes(text string) []string {
	text = strings.ReplaceAll(text, "templ.Component", "") // the type alone does nothing
	var list []string
	for what, re := range unsafe {
		if m := re.FindString(text); m != "" {
			list = append(list, what+": "+m)
		}
	}
	for _, m := range addressRE.FindAllStringSubmatch(text, -1) {
		if !checked[m[1]+" "+m[2]] {
			list = append(list, "an address where none is checked: "+m[0])
		}
	}
	return list
}

func TestTemplatesAreSafe(t *testing.T) {
	n := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		generated := strings.HasSuffix(path, "_templ.go")
		switch {
		case err != nil || d.IsDir():
			return err
		case !strings.HasSuffix(path, ".templ") && (!strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go")):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := string(data)
		switch {
		case generated:
			if _, err := os.Stat(strings.TrimSuffix(path, "_templ.go") + ".templ"); err != nil {
				t.Errorf("%s has no template: %v", path, err)
			}
		case strings.HasSuffix(path, ".go"):
			// Go code passes components on, and makes none past the escaping.
			if m := regexp.MustCompile(`templ\.[A-Za-z]+\(`).FindString(text); m != "" {
				t.Errorf("%s has %s", path, m)
			}
		default:
			n++
			for _, m := range mistakes(text) {
				t.Errorf("%s has %s", path, m)
			}
			if _, err := os.Stat(strings.TrimSuffix(path, ".templ") + "_templ.go"); err != nil {
				t.Errorf("%s: run go generate ./web: %v", path, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 10 {
		t.Errorf("%d templates were looked at", n)
	}
}

func TestMistakesAreFound(t *testing.T) {
	for _, bad := range []string{
		"@templ.Raw(x)", "<a href={ templ.SafeURL(x) }>", "script f() {", "css c() {", "<style>", `<p style="a">`, "<p style={ x }>",
		"<script>x</script>", `<script src="/x">`, "<script src={ x }>", "<img src={ x }/>", "<img src={ s.x }/>", `<p onclick="x">`, "<p onclick={ x }>",
		"<button formaction={ x }>", "<object data={ x }>", "<area href={ x }>", "<base\n\thref={ x }>", "<p { x }={ y }>", "<p { attrs... }>",
	} {
		if len(mistakes(bad)) == 0 {
			t.Errorf("%q passes", bad)
		}
	}
	for _, good := range []string{"<a\n\tclass={ x }\n\thref={ x }\n>", "<form action={ x }>", "<script src={ staticURL(\"upkeep.js\") } defer>", "if len(v) > 0 {\n\t<p data-n={ x }>{ y } on</p>\n}"} {
		if m := mistakes(good); len(m) > 0 {
			t.Errorf("%q: %v", good, m)
		}
	}
}
