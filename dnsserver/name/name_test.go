package name

import (
	"errors"
	"os"
	"strings"
	"testing"
)

const zone = "l.upkeep.test."

func readLines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestModule(t *testing.T) {
	for _, line := range readLines(t, "testdata/modules.txt") {
		path, want, _ := strings.Cut(line, " ")
		got, err := Module(path, zone)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", path, got, err, want)
			continue
		}
		for _, spelling := range []string{want, strings.TrimSuffix(want, "."), strings.ToUpper(want)} {
			n, err := ParseName(spelling, zone)
			if err != nil || n.Path != path {
				t.Errorf("reading %s: %+v, %v; want %s", spelling, n, err, path)
			}
		}
	}
}

// Paths of real modules have a name each, all different, that reads back.
func TestCorpus(t *testing.T) {
	seen := map[string]string{}
	for _, path := range readLines(t, "testdata/corpus.txt") {
		q, err := Module(path, zone)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if other, twice := seen[q]; twice {
			t.Errorf("%s and %s are both %s", path, other, q)
		}
		seen[q] = path
		kind := KindHost
		if strings.Contains(path, "/") {
			kind = KindPath
		}
		if n, err := ParseName(q, zone); err != nil || n != (Name{kind, path}) {
			t.Errorf("%s: read %s as %+v, %v", path, q, n, err)
		}
	}
}

func TestModuleErrors(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tc := range []struct {
		path    string
		tooLong bool
	}{
		{"", false},
		{"/x", false},
		{"example.org/", false},
		{"example.org//x", false},
		{"Example.org/x", false},
		{"example..org/x", false},
		{"exa_mple.org", false},
		{"example.org/" + long, true},
		{"example.org/" + strings.Repeat("A", 22), true},
		{"example.org" + strings.Repeat("/abcdefgh", 25), true},
	} {
		q, err := Module(tc.path, zone)
		if err == nil || errors.Is(err, ErrTooLong) != tc.tooLong {
			t.Errorf("%q: %q, %v; want too long: %v", tc.path, q, err, tc.tooLong)
		}
	}
	// Exactly at the limits.
	for _, path := range []string{"example.org/" + long[1:], "example.org/" + strings.Repeat("A", 21)} {
		if _, err := Module(path, zone); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	longest := "example.org/" + strings.Repeat("a/", 104) + "b"
	if q, err := Module(longest, zone); err == nil && len(q)+1 > 255 || err != nil && !errors.Is(err, ErrTooLong) {
		t.Errorf("%d bytes, %v", len(q)+1, err)
	}
	for n := 1; n < 130; n++ {
		q, err := Module("example.org/"+strings.Repeat("a/", n)+"b", zone)
		if (err == nil) != (len("b.")+2*n+len("_.example.org.v0.")+len(zone)+1 <= 255) {
			t.Errorf("%d elements: %q, %v", n+1, q, err)
		}
	}
}

func TestParseName(t *testing.T) {
	for _, tc := range []struct {
		qname string
		want  Name
		err   error
	}{
		{"l.upkeep.test.", Name{Kind: KindOther}, nil},
		{"ns0.l.upkeep.test", Name{Kind: KindOther}, nil},
		{"v0.l.upkeep.test.", Name{Kind: KindRoot}, nil},
		{"com.v0.l.upkeep.test.", Name{KindHost, "com"}, nil},
		{"github.com.V0.l.upkeep.test.", Name{KindHost, "github.com"}, nil},
		{"_.github.com.v0.l.upkeep.test.", Name{KindSeparator, "github.com"}, nil},
		{"mjl_2D._.GitHub.com.v0.l.upkeep.test.", Name{KindPath, "github.com/mjl-"}, nil},
		{"toolchain.v0.l.upkeep.test.", Name{Kind: KindToolchain}, nil},
		{"x.toolchain.v0.l.upkeep.test.", Name{KindHost, "x.toolchain"}, nil},
		{"status.v0.l.upkeep.test.", Name{Kind: KindStatus}, nil},

		{"xl.upkeep.test.", Name{}, ErrOutside},
		{"upkeep.test.", Name{}, ErrOutside},
		{".", Name{}, ErrOutside},
		{"mox._6djl_2d._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical}, // an m written out
		{"a_2db._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},        // a dash inside written out
		{"mjl-._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},         // a dash at the end not written out
		{"-x._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{"_.x._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical}, // two separators
		{"_.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{"x._.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{"x_2._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{"x_zz._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{"x__2d._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{"a_2fb._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical}, // a slash
		{"a_00._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
		{`a\.b._.github.com.v0.l.upkeep.test.`, Name{}, ErrNotCanonical},
		{`a\000._.github.com.v0.l.upkeep.test.`, Name{}, ErrNotCanonical},
		{"x_2d.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical}, // nothing is written out in a host
		{"*._.github.com.v0.l.upkeep.test.", Name{}, ErrNotCanonical},
	} {
		got, err := ParseName(tc.qname, zone)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %+v, %v; want %+v, %v", tc.qname, got, err, tc.want, tc.err)
		}
	}
	if n, err := ParseName("github.com.v0.", "."); err != nil || n != (Name{KindHost, "github.com"}) {
		t.Errorf("root zone: %+v, %v", n, err)
	}
}

func TestFixedNames(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{Toolchain("L.upkeep.test"), "toolchain.v0.l.upkeep.test."},
		{Status(zone), "status.v0.l.upkeep.test."},
		{Updates("example.org"), "_updates.example.org."},
	} {
		if tc.got != tc.want {
			t.Errorf("%s; want %s", tc.got, tc.want)
		}
	}
}

// Whatever can be read as a module's name is written back as the same name.
func FuzzParseName(f *testing.F) {
	for _, q := range []string{"mox.mjl_2d._.github.com.v0.", "com.v0.", "_.github.com.v0.", "toolchain.v0.", "a_2db._.x.org.v0.", "_2d_2d._.x.org.v0.", ""} {
		f.Add(q + zone)
	}
	f.Fuzz(func(t *testing.T, qname string) {
		n, err := ParseName(qname, zone)
		if err != nil {
			if n != (Name{}) {
				t.Fatalf("%q: %+v beside the error %v", qname, n, err)
			}
			return
		}
		if n.Kind != KindPath && n.Kind != KindHost {
			return
		}
		back, err := Module(n.Path, zone)
		if errors.Is(err, ErrTooLong) {
			return
		}
		want := strings.ToLower(strings.TrimSuffix(qname, ".") + ".")
		if err != nil || back != want {
			t.Fatalf("%q is the module %q, whose name is %q, %v", qname, n.Path, back, err)
		}
	})
}

// What is no name in wire format has no path.
func TestParseWireMalformed(t *testing.T) {
	for _, wire := range []string{"\x00", "\x03com\x00", "\x04com", "\x40" + strings.Repeat("a", 64), "\x01a" + strings.Repeat("\x01b", 127), "\x02_2\x01_\x03com", "\x01A"} {
		if kind, path, err := ParseWire(nil, []byte(wire)); err == nil {
			t.Errorf("%q: kind %d, path %q", wire, kind, path)
		}
	}
	room := []byte("kept:")
	if kind, path, err := ParseWire(room, []byte("\x03mox\x07mjl_2d-\x01_\x06github\x03com")); err == nil {
		t.Errorf("kind %d, path %q: a dash at the end is to be escaped", kind, path)
	}
	if kind, path, err := ParseWire(room, []byte("\x03mox\x06mjl_2d\x01_\x06github\x03com")); err != nil || kind != KindPath || string(path) != "kept:github.com/mjl-/mox" {
		t.Errorf("kind %d, path %q, %v", kind, path, err)
	}
}

func TestAbove(t *testing.T) {
	const zone = "l.upkeep.test."
	long, label, host := strings.Repeat("x", 64), strings.Repeat("y", 60), strings.Repeat("z", 64)
	deep := strings.TrimSuffix(strings.Repeat(label+"/", 4), "/")
	for _, tc := range []struct{ module, want string }{
		{"github.com/user/" + long, "user._.github.com.v0.l.upkeep.test."},
		{"github.com/User/a/" + long + "/v2", "a._55ser._.github.com.v0.l.upkeep.test."},
		{"github.com/" + long + "/a", "_.github.com.v0.l.upkeep.test."},
		{"github.com/" + deep, label + "." + label + "." + label + "._.github.com.v0.l.upkeep.test."},
		{host + ".example.org/a", "example.org.v0.l.upkeep.test."},
		{host + ".org", "org.v0.l.upkeep.test."},
		{host, ""},
	} {
		if name, ok := Above(tc.module, zone); name != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: %q, %v; want %q", tc.module, name, ok, tc.want)
		}
	}
	// A host for which there is just room, and none for the separator.
	const free = 255 - 15 - 3
	host = strings.Repeat(strings.Repeat("h", 63)+".", 3) + strings.Repeat("i", free-3*64-1)
	if name, ok := Above(host+"/a", zone); !ok || name != host+".v0."+zone {
		t.Errorf("%q, %v", name, ok)
	}
}
