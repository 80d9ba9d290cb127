package proxy

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	b := Backends{"http": "127.0.0.1:4321", "six": "[::1]:99", "a b": "127.0.0.1:1", `q"`: "127.0.0.1:2", "bad": "no port"}
	for text, want := range map[string]string{
		``:                                ``,
		`plain`:                           `plain`,
		`}} { } {x}`:                      `}} { } {x}`,
		`-addr={{.Addr "http"}}`:          `-addr=127.0.0.1:4321`,
		`{{.Host "six"}} {{.Port "six"}}`: `::1 99`,
		`{{.Addr "http"}}{{.Addr "six"}}`: `127.0.0.1:4321[::1]:99`,
		"{{ .Addr\t\"http\" }}":           `127.0.0.1:4321`,
		"{{.Port `http`}}":                `4321`,
		`{{.Port "a b"}}`:                 `1`,
		`{{.Port "q\""}}`:                 `2`,
		`{{.Port "\x61 b"}}`:              `1`,
		`{{.Port "http"}}}}`:              `4321}}`,
	} {
		if got, err := b.Expand(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{{.Addr "other"}}`:              `no proxy address "other"`,
		`{{.Addr ""}}`:                   `no proxy address ""`,
		`{{.Port "bad"}}`:                "missing port",
		`{{.Host "\z"}}`:                 "not quoted",
		`{{`:                             allowed,
		`{{}}`:                           allowed,
		`{{.Addr`:                        allowed,
		`{{.Addr "http"`:                 allowed,
		`{{.Addr "http" }`:               allowed,
		`{{.Addr}}`:                      allowed,
		`{{.Addr http}}`:                 allowed,
		`{{.Addr 'http'}}`:               allowed,
		`{{.Addr"http"}}`:                allowed,
		`{{Addr "http"}}`:                allowed,
		`{{.addr "http"}}`:               allowed,
		`{{.Addr "http" "six"}}`:         allowed,
		`{{.Addr "http" | printf "%s"}}`: allowed,
		`{{- .Addr "http" -}}`:           allowed,
		`{{.Secret}}`:                    allowed,
		`{{.Part "http" "Addr"}}`:        allowed,
		`{{/* x */}}`:                    allowed,
		`{{if true}}x{{end}}`:            allowed,
		`{{"{{"}}`:                       allowed,
		"{{.Addr\n\"http\"}}":            allowed,
		`{{{.Addr "http"}}}`:             allowed,
		`http://{{.Addr "http"}}/health?a={{.X}}`:    allowed,
		`{{.Addr "` + "http\x00" + `"}}`:             "no proxy address",
		`{{.Addr "` + strings.Repeat("{", 9) + `"}}`: "no proxy address",
	} {
		got, err := b.Expand(text)
		if err == nil || got != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v; want an error with %q", text, got, err, want)
		}
	}
}
