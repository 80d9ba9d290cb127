package buildinfo

import (
	"bytes"
	"context"
	stdlib "debug/buildinfo"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// It reads what the standard library reads, for every object format.
func TestLikeStandardLibrary(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	files := []string{own}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.org/hello\n\ngo 1.26\n",
		"main.go": "package main\n\nfunc main() { println(\"\\xff Go buildinf:\", mark) }\n\nvar mark = []byte(\"\\xff Go buildinf:\\x08\\x02 not one\")\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	targets := []string{runtime.GOOS + "/" + runtime.GOARCH, "windows/amd64"}
	if os.Getenv("UPKEEP_TEST_LONG") == "1" { // the standard library is compiled for each
		targets = append(targets, "linux/386", "linux/s390x", "darwin/arm64", "freebsd/amd64")
	}
	for _, target := range targets {
		goos, arch, _ := strings.Cut(target, "/")
		file := filepath.Join(dir, goos+"-"+arch)
		cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", file)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building for %s: %v\n%s", target, err, out)
		}
		files = append(files, file)
	}
	for _, file := range files {
		got, err := ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		want, err := stdlib.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read\n%v\nwant\n%v", filepath.Base(file), got, want)
		}
	}

	// Two places: it is not said which one counts.
	good, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(good, append(magic, 8, 2))
	blob := good[at : at+2048]
	twice := append([]byte("not an ELF file "), blob...)
	if _, err := Read(bytes.NewReader(twice), int64(len(twice))); err != nil {
		t.Errorf("once, in a file of no known format: %v", err)
	}
	twice = append(twice, blob...)
	if _, err := Read(bytes.NewReader(twice), int64(len(twice))); err == nil || !strings.Contains(err.Error(), "two places") {
		t.Errorf("two places: %v", err)
	}
	if _, err := Read(strings.NewReader("#!/bin/sh\n"), 10); !errors.Is(err, ErrNone) {
		t.Errorf("a script: %v", err)
	}
}

// Marks are found wherever they lie, also on the border of two reads.
func TestBorders(t *testing.T) {
	blob := append(append([]byte{}, magic...), 8, inline)
	blob = append(blob, make([]byte, headerLen-len(blob))...)
	blob = append(blob, "\x06go1.26\x00"...)
	for at := int64(chunk - 64); at <= chunk+64; at++ {
		file := append(make([]byte, at), blob...)
		bi, err := Read(bytes.NewReader(file), int64(len(file)))
		if aligned := at%align == 0; aligned && (err != nil || bi.GoVersion != "go1.26") || !aligned && !errors.Is(err, ErrNone) {
			t.Errorf("at %d: %v, %v", at, bi, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\xff Go buildinf:\x08\x02" + strings.Repeat("\x00", 16) + "\x06go1.26\x30" + strings.Repeat("x", 16) + "path\tcommand-li" + "\n" + strings.Repeat("y", 16)))
	f.Add(append([]byte("\x7fELF\x02\x01"), make([]byte, 58)...))
	f.Add(append([]byte("\x7fELF\x01\x02"), bytes.Repeat([]byte{0, 52}, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		bi, err := Read(bytes.NewReader(b), int64(len(b)))
		if (bi == nil) == (err == nil) {
			t.Errorf("%v, %v", bi, err)
		}
		if bi != nil && !bytes.Contains(b, magic) {
			t.Error("information without a mark")
		}
	})
}
