package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type color string

func (c *color) UnmarshalText(text []byte) error {
	if string(text) != "red" && string(text) != "blue" {
		return errors.New("is no color")
	}
	*c = color(text)
	return nil
}

type sample struct {
	Color  color    `toml:"color,omitempty"`
	Colors []color  `toml:"colors,omitempty"`
	Listen string   `toml:"listen" comment:"Address to listen on."`
	Delay  Duration `toml:"delay" comment:"How long to wait."`
	Update struct {
		Policy string `toml:"policy" comment:"patch, minor or manual."`
		Jitter bool   `toml:"jitter"`
	} `toml:"update" comment:"What to update."`
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
	}{
		{"good", "listen = ':1'\ndelay = '3d'\n[update]\npolicy = 'minor'\n", ""},
		{"typo", "lisen = ':1'\n", "f.toml:1:1: key lisen: is not known; did you mean listen?"},
		{"typo in a table", "\n[update]\npolcy = 'x'\n", "f.toml:3:1: key update.polcy: is not known; did you mean update.policy?"},
		{"right key, wrong table", "policy = 'x'\n", "key policy: is not known; did you mean update.policy?"},
		{"typo in the wrong table", "polcy = 'x'\n", "key polcy: is not known; did you mean update.policy?"},
		{"nothing near", "zebra_crossing_ahead = 1\n", "f.toml:1:1: key zebra_crossing_ahead: is not known"},
		{"bad duration", "delay = 'soon'\n", "f.toml:1:9: key delay: \"soon\" is not a duration"},
		{"bad text", "\ncolor = 'pink'\n", "f.toml:2:9: key color: is no color"},
		{"bad text in a list", "colors = ['red',\n 'pink']\n", "f.toml:2:2: key colors: is no color"},
		{"good text and typo", "color = 'red'\ncolro = 'red'\n", "f.toml:2:1: key colro: is not known; did you mean color?"},
		{"negative duration", "delay = '-3s'\n", "not a duration"},
		{"wrong type", "listen = 3\n", "f.toml:1:10: key listen: can't be of the type integer; 'config default' shows"},
		{"syntax", "listen = \n", "f.toml:1:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s sample
			err := Parse("f.toml", []byte(tc.text), &s)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if s.Delay.D() != 72*time.Hour || s.Update.Policy != "minor" {
					t.Fatalf("read %+v", s)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v; want %q", err, tc.want)
			}
			var ce *Error
			if !errors.As(err, &ce) || ce.File != "f.toml" {
				t.Fatalf("got %T; want *Error that names the file", err)
			}
		})
	}
}

// What has no end is not read to it.
func TestLoadEndless(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.toml")
	if err := os.WriteFile(file, bytes.Repeat([]byte("#"), maxSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	files := []string{file}
	if _, err := os.Stat("/dev/zero"); err == nil {
		files = append(files, "/dev/zero")
	}
	for _, file := range files {
		var s sample
		if err := Load(file, &s); err == nil || !strings.Contains(err.Error(), "is too long") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// What is printed is read back as the same values, and carries its documentation.
func TestDefaultRoundTrip(t *testing.T) {
	in := sample{Listen: "localhost:1", Delay: Duration(90 * time.Minute)}
	in.Update.Policy = "patch"
	text, err := Default(in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "# Address to listen on.") || !strings.Contains(string(text), `'1h30m'`) {
		t.Fatalf("printed:\n%s", text)
	}
	var out sample
	if err := Parse("default", text, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out, in) {
		t.Fatalf("read back %+v; want %+v", out, in)
	}
}
