package bindiff

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// own returns the test program itself, which is a Go binary.
func own(t *testing.T) []byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCompare(t *testing.T) {
	a := own(t)
	secs, err := sections(bytes.NewReader(a))
	if err != nil || len(secs) < 3 {
		t.Fatalf("%d sections, %v", len(secs), err)
	}
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(a)
		f(b)
		return b
	}
	marker := []byte("a text that stands in the program only once: the marker of a test")
	at := bytes.Index(a, marker)
	if at < 0 {
		t.Fatal("the marker is not in the program")
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want []string
	}{
		{"equal", a, nil},
		{"a flipped bit in data", change(func(b []byte) { b[at] ^= 1 }), []string{"first different byte", "build information is the same", "differs"}},
		{"cut", a[:len(a)-1], []string{fmt.Sprintf("the sizes are %d (ours) and %d (theirs)", len(a), len(a)-1)}},
		{"empty", nil, []string{"at 0x0", "can't be compared"}},
		{"no binary", []byte("#!/bin/sh\n"), []string{"can't be read", "can't be compared"}},
	} {
		got, err := Compare(bytes.NewReader(a), bytes.NewReader(tc.b), int64(len(a)), int64(len(tc.b)))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		all := strings.Join(got, "\n")
		if (len(got) == 0) != (tc.want == nil) {
			t.Errorf("%s: %s", tc.name, all)
		}
		for _, w := range tc.want {
			if !strings.Contains(all, w) {
				t.Errorf("%s: %q is not in\n%s", tc.name, w, all)
			}
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"), []byte("MZ"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		got, err := Compare(bytes.NewReader(a), bytes.NewReader(b), int64(len(a)), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if (len(got) == 0) != bytes.Equal(a, b) {
			t.Fatalf("%d differences, equal %v", len(got), bytes.Equal(a, b))
		}
	})
}
