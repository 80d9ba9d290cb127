package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "hello")
	if got := findUnit(bin); got != "" {
		t.Errorf("found %q where there is none", got)
	}
	for name, text := range map[string]string{
		"upkeep@.service":                       "[Service]\nExecStart=/opt/100%%/upkeep run -config " + dir + "/%i/upkeep.toml\nRestart=always\n",
		"upkeep@hello.service.d/service.conf":   "[Service]\nUser=hello\n",
		"upkeep@hello.service.d/ignored.conf~":  "[Service]\nUser=\n",
		"upkeep@another.service.d/service.conf": "[Service]\nUser=another\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := findUnit(bin)
	if filepath.Base(file) != "upkeep@hello.service" {
		t.Fatalf("found %q", file)
	}
	text, err := readUnit(file)
	if err != nil || !strings.Contains(text, "/hello/upkeep.toml") || !strings.Contains(text, "User=hello") || strings.Contains(text, "another") {
		t.Fatalf("%v\n%s", err, text)
	}
	got := Unit(file, text, UnitFacts{Config: dir + "/hello/upkeep.toml", Exists: func(f string) bool { return f == "/opt/100%/upkeep" }})
	if len(got) != 1 || got[0].Level != OK {
		t.Errorf("%+v", got)
	}
	if _, err := readUnit(filepath.Join(dir, "none.service")); err == nil {
		t.Error("read a unit that isn't there")
	}
}
