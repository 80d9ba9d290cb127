package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/web/login"
)

func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "upkeep.toml")
	good := "[service]\npath = \"hello\"\n\n[updates]\npolicy = \"minor\"\nwindows = [\"22:30-04:00\"]\n"
	if err := os.WriteFile(file, []byte(good), 0o640); err != nil {
		t.Fatal(err)
	}
	s := settings{file}
	text, values, err := s.Read()
	if err != nil || text != good {
		t.Fatalf("%q %v", text, err)
	}
	want := map[string][2]string{
		"updates.policy": {"'minor'", "file"}, "updates.windows": {"['22:30-04:00']", "file"}, "updates.keep": {"2", "default"},
		"updates.delay": {"'72h'", "default"}, "web.edit_config": {"false", "default"}, "service.path": {"'hello'", "file"},
	}
	for _, v := range values {
		if w, ok := want[v.Key]; ok {
			if v.Value != w[0] || v.Origin != w[1] || v.Doc == "" {
				t.Errorf("%s = %s from %s (%s), want %v", v.Key, v.Value, v.Origin, v.Doc, w)
			}
			delete(want, v.Key)
		}
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}

	if p := s.Check(good); len(p) != 0 {
		t.Errorf("a good text: %+v", p)
	}
	if text, err := config.Default(defaultConfig()); err != nil || len(s.Check(strings.Replace(string(text), "path = ''", "path = 'hello'", 1))) != 0 {
		t.Errorf("the default configuration: %+v, %v", s.Check(string(text)), err)
	}
	for text, want := range map[string]struct {
		line int
		text string
	}{
		"[service]\npath = \"x\"\n[updates]\npolcy = \"minor\"\n":   {4, "did you mean updates.policy?"},
		"[service]\npath = \"x\"\n[updates]\ninterval = \"soon\"\n": {4, "not a duration"},
		"[service]\npath = \"x\"\n[updates\n":                       {3, ""},
		"[service]\npath = \"x\"\n[updates]\nkeep = 0\n":            {0, "updates.keep is 0"},
		"[updates]\nkeep = 2\n":                                     {0, "service.path is not set"},
		// What "upkeep config check" says, the page says too.
		"[service]\npath = \"x\"\n[control]\ngroup = \"no group of this machine\"\n": {0, "control.group"},
		"[service]\npath = \"x\"\n[web]\nmetrics = \"127.0.0.1:8301\"\n":             {0, "web.listen is not set"},
		"[service]\npath = \"x\"\n[web]\nlisten = \":8300\"\n":                       {0, "nobody has to log in"},
	} {
		p := s.Check(text)
		if len(p) == 0 || p[0].Line != want.line || !strings.Contains(p[0].Text, want.text) {
			t.Errorf("%q: %+v, want line %d %q", text, p, want.line, want.text)
		}
	}

	if err := s.Save("# new\n"); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(file)
	if data, _ := os.ReadFile(file); err != nil || string(data) != "# new\n" || fi.Mode().Perm() != 0o640 {
		t.Errorf("saved %q with mode %v: %v", data, fi.Mode(), err)
	}
}

// The rules about where the page may listen hold for the whole configuration.
func TestPageConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "upkeep.toml")
	if err := os.WriteFile(file, []byte("[service]\npath = \"hello\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(listen string, plain bool, want string) {
		t.Helper()
		c, err := loadConfig(file)
		if err != nil {
			t.Fatal(err)
		}
		c.Web.Listen, c.Web.Plain = listen, plain
		page, _, err := pageConfig(c, nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s plain %v: %v, want %q", listen, plain, err, want)
		}
		if err == nil && plain != page.Security.HTTPS {
			t.Errorf("%s plain %v: HTTPS %v", listen, plain, page.Security.HTTPS)
		}
	}
	check("127.0.0.1:8300", false, "")
	check(":8300", true, "nobody has to log in")
	name, err := changeAccess(file, func(a *login.Access) error { return a.SetUser("admin", "correct horse battery") })
	if err != nil || filepath.Base(name) != "access.json" {
		t.Fatal(name, err)
	}
	check(":8300", false, "without TLS")
	check(":8300", true, "")
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("127.0.0.1:8300", false, "access.json")
}
