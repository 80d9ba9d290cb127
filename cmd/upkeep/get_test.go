package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where nothing can be written nothing is asked for, and with -q nothing but
// errors is printed.
func TestGetOutput(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_STATE_HOME", dir)
	t.Setenv("XDG_CACHE_HOME", dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	told, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	stderr := os.Stderr
	os.Stderr = told
	defer func() { os.Stderr = stderr }()
	get := func(args ...string) string {
		t.Helper()
		p := program()
		var errs bytes.Buffer
		p.Stderr = &errs
		args = append([]string{"get", "-key", w.key, "-builder", w.builder, "-proxy", w.proxy, "-sumdb", w.sumdb, "-go", "go1.26.8"}, args...)
		if code := p.Run(t.Context(), append(args, "example.org/hello@v1.0.0")); code != 1 {
			t.Errorf("%q: exit code %d", args, code)
		}
		return errs.String()
	}
	for _, tc := range []struct{ out, want string }{
		{filepath.Join(dir, "none", "hello"), "Make the folder"},
		{filepath.Join(file, "hello"), "is not a folder"},
		{dir, "is not a regular file"},
	} {
		if errs := get("-o", tc.out); !strings.Contains(errs, tc.want) {
			t.Errorf("-o %s: %s; want %q", tc.out, errs, tc.want)
		}
	}
	if fi, err := told.Stat(); err != nil || fi.Size() > 0 || w.asked > 0 {
		t.Errorf("with a file that can't be written something was done: %d bytes of messages, %d requests (%v)", fi.Size(), w.asked, err)
	}
	// The builder of this world builds nothing.
	if errs := get("-q", "-o", filepath.Join(dir, "hello")); errs == "" {
		t.Error("no error")
	}
	if fi, err := told.Stat(); err != nil || fi.Size() > 0 {
		t.Errorf("-q printed %d bytes (%v)", fi.Size(), err)
	}
	get("-o", filepath.Join(dir, "hello"))
	if fi, err := told.Stat(); err != nil || fi.Size() == 0 {
		t.Errorf("without -q nothing is printed (%v)", err)
	}
}

// A set-up that could not be used is refused before anything is asked for.
func TestInitChecksFirst(t *testing.T) {
	w := newWorld(t)
	for flag, want := range map[string]string{
		"-listen": "the address \"nonsense\" is not host:port", "-health": "health.url is \"nonsense\"",
	} {
		dir := filepath.Join(t.TempDir(), "hello")
		p := program()
		var errs bytes.Buffer
		p.Stderr = &errs
		code := p.Run(t.Context(), []string{"init", "-key", w.key, "-builder", w.builder, "-proxy", w.proxy, "-sumdb", w.sumdb,
			"-dir", dir, flag, "nonsense", "-go", "go1.26.8", "example.org/hello@v1.0.0"})
		if code != 1 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: %d, %s; want %q", flag, code, &errs, want)
		}
		if _, err := os.Stat(dir); err == nil || w.asked > 0 {
			t.Errorf("%s: something was done: %v, %d requests", flag, err, w.asked)
		}
	}
}
