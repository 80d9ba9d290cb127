package fetch

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/tlog"
)

// A retraction that was published a moment ago is seen, and only one that the
// checksum database has.
func TestWithdrawn(t *testing.T) {
	f, fs, l := sumRig(t)
	if why, err := f.Withdrawn(t.Context(), helloModule, "v1.0.0"); why != "" || err != nil {
		t.Errorf("before: %q, %v", why, err)
	}
	const gomod = "module example.org/hello\n\ngo 1.22\n\nretract v1.0.0 // eats files\nretract [v1.0.2, v1.0.4]\n"
	hash, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(gomod)), nil })
	if err != nil {
		t.Fatal(err)
	}
	fs["/"+helloModule+"/@v/list"] = []byte("v1.0.0\nv1.0.5\nv1.0.9-rc1\nv2.0.0+incompatible\nrubbish\n")
	fs["/"+helloModule+"/@v/v1.0.5.mod"] = []byte(gomod)
	var v *VerifyError
	if why, err := f.Withdrawn(t.Context(), helloModule, "v1.0.0"); !errors.As(err, &v) || v.Kind != SumDBMissing || why != "" {
		t.Errorf("a retraction that nobody else sees: %q, %v", why, err)
	}
	if _, err := l.Append(t.Context(), tlog.Entry{Key: helloModule + "@v1.0.5",
		Text: fmt.Appendf(nil, "%s v1.0.5 h1:x=\n%s v1.0.5/go.mod %s\n", helloModule, helloModule, hash)}); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"v1.0.0": "eats files", "v1.0.1": "", "v1.0.3": "no reason given", "v1.0.5": ""} {
		if why, err := f.Withdrawn(t.Context(), helloModule, version); why != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", version, why, err, want)
		}
	}
	if a, err := f.Author(t.Context(), helloModule, "v1.0.5"); err != nil || a.GoVersion != "go1.22" || a.Deprecated != "" {
		t.Errorf("%+v, %v", a, err)
	}
	fs["/"+helloModule+"/@v/v1.0.5.mod"] = []byte("module example.org/hello\n")
	if _, err := f.Withdrawn(t.Context(), helloModule, "v1.0.0"); !errors.As(err, &v) || v.Kind != SumDBBad {
		t.Errorf("a go.mod that was changed on the way: %v", err)
	}
	fs["/"+helloModule+"/@v/list"] = []byte("v2.0.0+incompatible\n")
	if why, err := f.Withdrawn(t.Context(), helloModule, "v2.0.0+incompatible"); why != "" || err != nil {
		t.Errorf("without any go.mod: %q, %v", why, err)
	}
}
