package name

import (
	"go/version"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/semver"
)

func at(sec int64) time.Time { return time.Unix(sec, 0).UTC() }

func TestFormatTXT(t *testing.T) {
	long := Entry{Version: "v1.0.0-" + strings.Repeat("x", 100), Time: at(1)}
	for _, tc := range []struct {
		in   []Entry
		want string
	}{
		{nil, ""},
		{[]Entry{{Version: "v0.0.15", Time: at(0x66fa7e15)}}, "v=v0.0.15 t=66fa7e15"},
		{[]Entry{{Version: "v2.0.0+incompatible", Time: at(16)}, {Version: "v1.2.3", Time: at(17)}}, "v=v2.0.0+incompatible t=10; v=v1.2.3 t=11"},
		{[]Entry{{"go1.27.4", at(1), "cur"}, {"go1.26.11", at(2), "prev"}}, "v=go1.27.4 k=cur t=1; v=go1.26.11 k=prev t=2"},
		{[]Entry{long, long, long}, FormatTXT([]Entry{long}) + "; " + FormatTXT([]Entry{long})},
		// One that does not fit ends the list: what follows is older, and must not take its place.
		{[]Entry{long, {Version: "v1.0.0-" + strings.Repeat("x", 200)}, {Version: "v0.1.0"}}, FormatTXT([]Entry{long})},
	} {
		if got := FormatTXT(tc.in); got != tc.want || len(got) > MaxText {
			t.Errorf("%v: %q; want %q", tc.in, got, tc.want)
		}
	}
}

func TestParseTXT(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []Entry
		err  string
	}{
		{"v=v0.0.15 t=66fa7e15", []Entry{{"v0.0.15", at(0x66fa7e15), ""}}, ""},
		{"v=v2.0.0 t=2; v=v1.9.0+incompatible t=1", []Entry{{"v2.0.0", at(2), ""}, {"v1.9.0+incompatible", at(1), ""}}, ""},
		{"v=go1.28rc1 k=next t=a;v=go1.21.0", []Entry{{"go1.28rc1", at(10), "next"}, {"go1.21.0", time.Time{}, ""}}, ""},
		{"x=1 v=v1.0.0 flag y=", []Entry{{Version: "v1.0.0"}}, ""},

		{"", nil, "no version"},
		{"t=1", nil, "no version"},
		{"v=v1.0.0;", nil, "no version"},
		{"v=", nil, "no version"},
		{"v=1.0.0", nil, "malformed version"},
		{"v=v1.0", nil, "malformed version"},
		{"v=v1.0.0+meta", nil, "malformed version"},
		{"v=v1.0.0/../x", nil, "malformed version"},
		{"v=go1.x", nil, "malformed version"},
		{"v=go1.27.", nil, "malformed version"},
		{"v=go1.27.4-custom", nil, "malformed version"},
		{"v=go1.027", nil, "malformed version"},
		{"v=v1.0.0 v=v2.0.0", nil, "twice"},
		{"v=v1.0.0 t=xyz", nil, "malformed time"},
		{"v=v1.0.0 t=-1", nil, "malformed time"},
		{"v=v1.0.0 t=7fffffffffffffff", nil, "malformed time"},
		{"v=v1.0.0-" + strings.Repeat("x", 300), nil, "malformed version"},
		{strings.Repeat("v=v1.0.0;", 65), nil, "entries"},
		{strings.Repeat("x", 5000), nil, "bytes"},
	} {
		got, err := ParseTXT(tc.in)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: %v, %v; want an error with %q", tc.in, got, err, tc.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: %v, %v; want %v", tc.in, got, err, tc.want)
		}
	}
}

func TestStatus(t *testing.T) {
	s := StatusText{Size: 71848828, At: at(0x6740a000)}
	s.Hash[0] = 1
	const text = "n=71848828 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= at=6740a000"
	if got := s.Format(); got != text {
		t.Errorf("%s; want %s", got, text)
	}
	if got, err := ParseStatus(text + " new=field"); err != nil || got != s {
		t.Errorf("%+v, %v; want %+v", got, err, s)
	}
	for _, bad := range []string{
		"", "n=1", "n=-1 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= at=1",
		"n=1 h=AQAA at=1", "n=1 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= at=",
		"n=1 n=2 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= at=1",
		"n=1 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB= at=1", // bits set behind the end
		strings.Repeat("x", 5000),
	} {
		if got, err := ParseStatus(bad); err == nil {
			t.Errorf("%q: %+v; want an error", bad, got)
		}
	}
}

func TestParseUpdates(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"v=UPDATES0; l=v0.0.11", "v0.0.11"},
		{"v=UPDATES0;l=v1.2.3;x=y;", "v1.2.3"},
		{"v=UPDATES0 ; new ; l = v1.2.3-rc1", "v1.2.3-rc1"},
		{"", ""}, {"v=UPDATES0", ""}, {"v=UPDATES1; l=v1.0.0", ""}, {"l=v1.0.0; v=UPDATES0", ""},
		{"v=UPDATES0; l=1.0.0", ""}, {"v=UPDATES0; l=v1.0.0; l=v2.0.0", ""}, {"v=UPDATES0; l=go1.27", ""},
		{strings.Repeat("x", 5000), ""},
	} {
		got, err := ParseUpdates(tc.in)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%q: %q, %v; want %q", tc.in, got, err, tc.want)
		}
	}
}

// What is read and fits is written back to a text that reads the same.
func FuzzParseTXT(f *testing.F) {
	f.Add("v=v0.0.15 t=66fa7e15")
	f.Add("v=go1.27.4 k=cur t=1; v=go1.26.11 k=prev t=2")
	f.Add("v=v2.0.0+incompatible x=1;v=v1.0.0-rc.1")
	f.Fuzz(func(t *testing.T, txt string) {
		entries, err := ParseTXT(txt)
		if err != nil {
			return
		}
		for _, e := range entries {
			base := strings.TrimSuffix(e.Version, "+incompatible")
			if semver.Canonical(base) != base && !version.IsValid(e.Version) || !strings.Contains(txt, "v="+e.Version) {
				t.Fatalf("%q: version %q", txt, e.Version)
			}
		}
		if len(txt) > maxForeign || len(entries) > maxEntries {
			t.Fatalf("%d bytes, %d entries", len(txt), len(entries))
		}
		out := FormatTXT(entries)
		if len(out) > MaxText {
			t.Fatalf("%d bytes", len(out))
		}
		if out == "" {
			return // the first entry alone is too long
		}
		again, err := ParseTXT(out)
		if err != nil || !reflect.DeepEqual(again, entries[:len(again)]) {
			t.Fatalf("%q became %q: %v, %v; had %v", txt, out, again, err, entries)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("n=1 h=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= at=1")
	f.Fuzz(func(t *testing.T, txt string) {
		s, err := ParseStatus(txt)
		if err != nil {
			return
		}
		if again, err := ParseStatus(s.Format()); err != nil || again != s {
			t.Fatalf("%q: %+v, again %+v, %v", txt, s, again, err)
		}
	})
}

func FuzzParseUpdates(f *testing.F) {
	f.Add("v=UPDATES0; l=v0.0.11")
	f.Fuzz(func(t *testing.T, txt string) {
		l, err := ParseUpdates(txt)
		if (l == "") != (err != nil) {
			t.Fatalf("%q: %q, %v", txt, l, err)
		}
		if err != nil {
			return
		}
		// What is read stands in the text, is a version, and reads the same alone.
		again, err := ParseUpdates("v=UPDATES0; l=" + l)
		if again != l || !semver.IsValid(l) || !strings.Contains(txt, l) {
			t.Fatalf("%q: %q, again %q, %v", txt, l, again, err)
		}
	})
}
