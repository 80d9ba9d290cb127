package fetch

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzHeader: a file that the Go parser accepts has the same package here.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"package main\n", "// x\n\n//go:build linux && !cgo\n\n/* y */ package /* z */ main // w\n", "\ufeffpackage lib;import \"x\"",
		"/*\n//go:build ignore\n*/\npackage p\n", "package", "package _\n", "package func\n", "pakcage main\n", "//go:build x\r\npackage ä\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		name, _, ok := header(src)
		file, err := parser.ParseFile(token.NewFileSet(), "", src, parser.PackageClauseOnly)
		if err == nil && utf8.ValidString(src) && !strings.ContainsRune(src, 0) && (!ok || name != file.Name.Name) {
			t.Errorf("%q: %q, %v; the parser says %q", src, name, ok, file.Name.Name)
		}
	})
}

// FuzzEvents: a builder's events never do more than report.
func FuzzEvents(f *testing.F) {
	f.Add("event: update\ndata: {\"Kind\":\"QueuePosition\",\"QueuePosition\":2}\n\n")
	f.Add("data: {\nevent:update\ndata: \"Kind\":\"PermFailed\",\"Error\":\"\\u0007x\\ny\"}\n\n:\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		readEvents(strings.NewReader(stream), func(p Progress) bool {
			if p.Position < 0 || strings.ContainsAny(p.Text, "\n\x1b\x07") || len(p.Text) > 310 {
				t.Errorf("%+v", p)
			}
			return true
		})
	})
}

// FuzzSums: a record of a checksum database that is accepted is about the version.
func FuzzSums(f *testing.F) {
	f.Add("example.org/m v1.0.0 h1:a=\nexample.org/m v1.0.0/go.mod h1:b=\n")
	f.Add("example.org/m v1.0.0/go.mod h1:b=\nexample.org/m v1.0.0 h1:a=")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSums([]byte(text), "example.org/m", "v1.0.0")
		if err != nil {
			return
		}
		if !strings.Contains(text, "example.org/m v1.0.0 "+s.Zip) || !strings.Contains(text, "example.org/m v1.0.0/go.mod "+s.GoMod) {
			t.Errorf("%+v from %q", s, text)
		}
	})
}
