package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// When the time is over, what was wrong before that is told.
func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		check := func(ctx context.Context) error {
			if n++; n < 3 {
				return errors.New("not yet")
			}
			<-ctx.Done()
			return ctx.Err()
		}
		if err := until(t.Context(), time.Minute, check); err == nil || err.Error() != "not within 1m0s: not yet" {
			t.Errorf("%v", err)
		}
		if err := until(t.Context(), time.Minute, func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func TestSplitModule(t *testing.T) {
	for spec, want := range map[string]string{
		"example.org/a/cmd/b@v1.2.3": "example.org/a/cmd/b v1.2.3", "example.org/a@v2.0.0+incompatible": "example.org/a v2.0.0+incompatible",
		"example.org/a@v1.0.0-rc.1": "example.org/a v1.0.0-rc.1",
		"example.org/a":             "", "example.org/a@": "", "example.org/a@latest": "", "example.org/a@v1": "", "@v1.0.0": "", "example.org/a@v1.0.0@v1.0.0": "",
	} {
		pkg, version, err := splitModule(spec)
		if got := strings.TrimSpace(pkg + " " + version); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", spec, got, err, want)
		}
	}
}
