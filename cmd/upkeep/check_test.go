package main

import (
	"bytes"
	"strings"
	"testing"
)

// What can be no module is a mistake of whoever asks, and no answer.
func TestCheckArguments(t *testing.T) {
	for arg, want := range map[string]string{
		"not a module":             `"not a module" is no module`,
		"example.org/hello@v1.0.0": `name example.org/hello without "@v1.0.0"`,
		"":                         `"" is no module`,
	} {
		p := program()
		var errs bytes.Buffer
		p.Stderr = &errs
		if code := p.Run(t.Context(), []string{"check", "-zone", "l.example.org", arg}); code != 2 || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: %d, %s; want %q", arg, code, &errs, want)
		}
	}
}
