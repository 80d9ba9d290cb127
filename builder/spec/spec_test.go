package spec

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Spec
		file string
		cmd  string
	}{
		{"github.com/mjl-/mox@v0.0.15/linux-amd64-go1.26.3/",
			Spec{"github.com/mjl-/mox", "v0.0.15", "", "linux", "amd64", "go1.26.3", false}, "mox-v0.0.15-go1.26.3", "mox"},
		{"github.com/mccutchen/go-httpbin/v2@v2.25.0/cmd/go-httpbin/linux-arm64-go1.26.8-stripped/",
			Spec{"github.com/mccutchen/go-httpbin/v2", "v2.25.0", "cmd/go-httpbin", "linux", "arm64", "go1.26.8", true}, "go-httpbin-v2.25.0-go1.26.8-stripped", "go-httpbin"},
		{"example.org/tool/v3@v3.0.1/windows-386-go1.20/",
			Spec{"example.org/tool/v3", "v3.0.1", "", "windows", "386", "go1.20", false}, "v3-v3.0.1-go1.20.exe", "tool"},
		{"github.com/BurntSushi/toml@v1.4.0/cmd/tomlv/darwin-arm64-go1.28rc1/",
			Spec{"github.com/BurntSushi/toml", "v1.4.0", "cmd/tomlv", "darwin", "arm64", "go1.28rc1", false}, "tomlv-v1.4.0-go1.28rc1", "tomlv"},
		{"example.org/x@v2.0.0+incompatible/plan9-amd64-go1.21.0/",
			Spec{"example.org/x", "v2.0.0+incompatible", "", "plan9", "amd64", "go1.21.0", false}, "x-v2.0.0+incompatible-go1.21.0", "x"},
		{"example.org/x@v0.0.0-20260102030405-abcdefabcdef/linux-amd64/js-wasm-go1.26.0/",
			Spec{"example.org/x", "v0.0.0-20260102030405-abcdefabcdef", "linux-amd64", "js", "wasm", "go1.26.0", false}, "linux-amd64-v0.0.0-20260102030405-abcdefabcdef-go1.26.0", "linux-amd64"},
	} {
		got, err := Parse(tc.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tc.in, err)
			continue
		}
		if got != tc.want {
			t.Errorf("Parse(%q) = %+v, want %+v", tc.in, got, tc.want)
		}
		if got.String() != tc.in {
			t.Errorf("String() = %q, want %q", got.String(), tc.in)
		}
		if got.FileName() != tc.file || got.Command() != tc.cmd {
			t.Errorf("%q: file name %q, command %q; want %q, %q", tc.in, got.FileName(), got.Command(), tc.file, tc.cmd)
		}
	}
}

func TestParseBad(t *testing.T) {
	const ok = "example.org/x@v1.0.0/cmd/x/linux-amd64-go1.26.3/"
	if _, err := Parse(ok); err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{
		"", "/", "@", "@/", strings.TrimSuffix(ok, "/"), ok + "/", "/" + ok,
		"example.org/x/linux-amd64-go1.26.3/",                     // no version
		"example.org/x@v1.0.0/",                                   // no target
		"example.org/x@v1.0/linux-amd64-go1.26.3/",                // not canonical
		"example.org/x@main/linux-amd64-go1.26.3/",                // a branch
		"example.org/x@v2.0.0/linux-amd64-go1.26.3/",              // major version without suffix
		"example.org/x/v2@v1.0.0/linux-amd64-go1.26.3/",           // suffix of another major version
		"example.org/x@latest/linux-amd64-go1.26.3/",              // not exact
		"example.org/x@v1.0.0/linux-amd64-latest/",                // not exact
		"example.org/x@v1.0.0//linux-amd64-go1.26.3/",             // empty element
		"example.org/x@v1.0.0/cmd//x/linux-amd64-go1.26.3/",       // empty element
		"example.org/x@v1.0.0/../x/linux-amd64-go1.26.3/",         // walks up
		"example.org/x@v1.0.0/./linux-amd64-go1.26.3/",            // not clean
		"example.org/x@v1.0.0/cmd/x@v1.0.0/linux-amd64-go1.26.3/", // second @
		"example.org/x@v1.0.0/-x/../linux-amd64-go1.26.3/",        // walks up
		"example.org/x@v1.0.0/cmd x/linux-amd64-go1.26.3/",        // space
		"example.org/x@v1.0.0/cmd\n/linux-amd64-go1.26.3/",        // control character
		"example.org/x@v1.0.0/linux-amd64/",                       // no Go version
		"example.org/x@v1.0.0/linux-amd64-1.26.3/",                // no "go"
		"example.org/x@v1.0.0/linux-amd64-go2.0/",                 // Go 2
		"example.org/x@v1.0.0/linux-amd64-go1/",                   // no minor version
		"example.org/x@v1.0.0/linux-amd64-go1.026/",               // leading zero
		"example.org/x@v1.0.0/linux-amd64-go1.26.3.4/",            // too many parts
		"example.org/x@v1.0.0/linux-amd64-go1.26.3-debug/",        // unknown variant
		"example.org/x@v1.0.0/linux-amd64-go1.26.3-stripped-x/",   // more behind the variant
		"example.org/x@v1.0.0/Linux-amd64-go1.26.3/",              // upper case
		"example.org/x@v1.0.0/linux-amd64,softfloat-go1.26.3/",    // more than a name
		"-x.org/x@v1.0.0/linux-amd64-go1.26.3/",                   // looks like an option
		"fmt@v1.0.0/linux-amd64-go1.26.3/",                        // standard library
		"example.org/!x@v1.0.0/linux-amd64-go1.26.3/",             // escaped
		"example.org/x@v1.0.0/" + strings.Repeat("a", 2000) + "/linux-amd64-go1.26.3/",
	} {
		if sp, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", in, sp)
		}
	}
}

func TestParseRequest(t *testing.T) {
	for in, exact := range map[string]bool{
		"example.org/x@latest/linux-amd64-go1.26.3/":    false,
		"example.org/x@v1.0.0/linux-amd64-latest/":      false,
		"example.org/x/v2@latest/cmd/x/js-wasm-latest/": false,
		"example.org/x@v1.0.0/linux-amd64-go1.26.3/":    true,
	} {
		sp, err := ParseRequest(in)
		if err != nil || sp.String() != in || sp.Exact() != exact || (sp.Check() == nil) != exact {
			t.Errorf("ParseRequest(%q) = %+v, %v; exact %v, check %v", in, sp, err, sp.Exact(), sp.Check())
		}
	}
}

const exampleSum = "0AAECAwQFBgcICQoLDA0ODxAREhM"

func TestRecord(t *testing.T) {
	for _, tc := range []struct{ in, spec, out string }{
		{"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + " \n", "example.org/x@v1.0.0/linux-amd64-go1.26.3/", ""},
		{"example.org/x v1.0.0 /cmd/x linux amd64 go1.26.3 1 " + exampleSum + " stripped\n", "example.org/x@v1.0.0/cmd/x/linux-amd64-go1.26.3-stripped/", ""},
		{"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + "\n", "example.org/x@v1.0.0/linux-amd64-go1.26.3/",
			"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + " \n"},
	} {
		r, err := ParseRecord([]byte(tc.in))
		if err != nil {
			t.Errorf("ParseRecord(%q): %v", tc.in, err)
			continue
		}
		if tc.out == "" {
			tc.out = tc.in
		}
		if r.Spec.String() != tc.spec || string(r.Line()) != tc.out {
			t.Errorf("ParseRecord(%q): spec %q, line %q", tc.in, r.Spec, r.Line())
		}
	}
	for _, in := range []string{
		"", "\n", "a b\n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + " ",        // no newline
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + " \n\n",    // two
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + " other\n", // unknown variant
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + "  \n",     // ten fields
		"example.org/x v1.0.0 / linux amd64 go1.26.3 0 " + exampleSum + " \n",         // empty binary
		"example.org/x v1.0.0 / linux amd64 go1.26.3 -1 " + exampleSum + " \n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 +1 " + exampleSum + " \n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 01 " + exampleSum + " \n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 99999999999999999999 " + exampleSum + " \n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1 1" + exampleSum[1:] + " \n", // other format of sum
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1 " + exampleSum[:27] + " \n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1 " + exampleSum[:27] + "= \n",
		"example.org/x v1.0.0 / linux amd64 go1.26.3 1 " + exampleSum[:27] + "/ \n",
		"example.org/x v1.0.0 cmd linux amd64 go1.26.3 1 " + exampleSum + " \n",   // folder without slash
		"example.org/x v1.0.0 /cmd/ linux amd64 go1.26.3 1 " + exampleSum + " \n", // folder with trailing slash
		"example.org/x v1.0.0 // linux amd64 go1.26.3 1 " + exampleSum + " \n",
		"example.org/x latest / linux amd64 go1.26.3 1 " + exampleSum + " \n",
		"example.org/x v1.0.0 / linux amd64 latest 1 " + exampleSum + " \n",
		"example.org/x v1.0.0 /a\tb linux amd64 go1.26.3 1 " + exampleSum + " \n",
	} {
		if r, err := ParseRecord([]byte(in)); err == nil {
			t.Errorf("ParseRecord(%q) = %+v, want an error", in, r)
		}
	}
}

func TestDigest(t *testing.T) {
	d := NewDigest()
	d.Write([]byte("hel"))
	d.Write([]byte("lo"))
	// printf hello | sha256sum
	if got := d.Hex(); got != "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
		t.Errorf("hash %s", got)
	}
	if got := d.Sum(); got != "0LPJNul-wow4m6DsqxbninhsWHlw" || d.Size() != 5 || CheckSum(got) != nil {
		t.Errorf("sum %q, size %d, check %v", got, d.Size(), CheckSum(got))
	}
}

func TestCheckBuildInfo(t *testing.T) {
	s, err := Parse("example.org/x@v1.0.0/cmd/x/linux-amd64-go1.26.3/")
	if err != nil {
		t.Fatal(err)
	}
	good := func() *debug.BuildInfo {
		return &debug.BuildInfo{
			GoVersion: "go1.26.3", Path: "example.org/x/cmd/x",
			Main: debug.Module{Path: "example.org/x", Version: "v1.0.0", Sum: "h1:…"},
			Deps: []*debug.Module{{Path: "example.org/y", Version: "v1.0.0"}},
			Settings: []debug.BuildSetting{{Key: "-compiler", Value: "gc"}, {Key: "-trimpath", Value: "true"},
				{Key: "CGO_ENABLED", Value: "0"}, {Key: "GOARCH", Value: "amd64"}, {Key: "GOOS", Value: "linux"}},
		}
	}
	if err := CheckBuildInfo(good(), s); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*debug.BuildInfo){
		"package":     func(bi *debug.BuildInfo) { bi.Path = "example.org/x/cmd/y" },
		"module":      func(bi *debug.BuildInfo) { bi.Main.Path = "example.org/x/cmd/x" },
		"version":     func(bi *debug.BuildInfo) { bi.Main.Version = "v1.0.1" },
		"devel":       func(bi *debug.BuildInfo) { bi.Main.Version = "(devel)" },
		"replaced":    func(bi *debug.BuildInfo) { bi.Main.Replace = &debug.Module{Path: "../x"} },
		"replacedDep": func(bi *debug.BuildInfo) { bi.Deps[0].Replace = &debug.Module{Path: "../x"} },
		"go":          func(bi *debug.BuildInfo) { bi.GoVersion = "go1.26.4" },
		"goos":        func(bi *debug.BuildInfo) { bi.Settings[4].Value = "darwin" },
		"goarch":      func(bi *debug.BuildInfo) { bi.Settings[3].Value = "arm64" },
		"cgo":         func(bi *debug.BuildInfo) { bi.Settings[2].Value = "1" },
		"trimpath":    func(bi *debug.BuildInfo) { bi.Settings[1].Value = "false" },
		"compiler":    func(bi *debug.BuildInfo) { bi.Settings[0].Value = "gccgo" },
		"missing":     func(bi *debug.BuildInfo) { bi.Settings = bi.Settings[:4] },
		"twice": func(bi *debug.BuildInfo) {
			bi.Settings = append(bi.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
		},
	} {
		bi := good()
		change(bi)
		if CheckBuildInfo(bi, s) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("example.org/x@v1.0.0/cmd/x/linux-amd64-go1.26.3-stripped/")
	f.Add("example.org/x/v2@latest/linux-amd64-latest/")
	f.Add("gopkg.in/yaml.v3@v3.0.1/linux-amd64-go1.4/")
	f.Fuzz(func(t *testing.T, s string) {
		sp, err := ParseRequest(s)
		if err != nil {
			return
		}
		if sp.String() != s {
			t.Fatalf("%q is printed as %q", s, sp.String())
		}
		if sp.Exact() != (sp.Check() == nil) {
			t.Fatalf("%q: exact %v, check %v", s, sp.Exact(), sp.Check())
		}
		if name := sp.FileName(); strings.ContainsAny(name, "/\\ \n\x00") || name == "" || sp.Command() == "" || strings.Contains(sp.Command(), "/") {
			t.Fatalf("%q: file name %q, command %q", s, name, sp.Command())
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("example.org/x v1.0.0 /cmd/x linux amd64 go1.26.3 1 " + exampleSum + " stripped\n"))
	f.Add([]byte("example.org/x v1.0.0 / linux amd64 go1.26.3 1234 " + exampleSum + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRecord(line)
		if err != nil {
			return
		}
		again, err := ParseRecord(r.Line())
		if err != nil || again != r {
			t.Fatalf("%q is printed as %q, which reads as %+v, %v", line, r.Line(), again, err)
		}
		if sp, err := Parse(r.Spec.String()); err != nil || sp != r.Spec {
			t.Fatalf("record %q has the spec %q, which reads as %+v, %v", line, r.Spec, sp, err)
		}
	})
}
