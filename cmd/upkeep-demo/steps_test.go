package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

// A step that somebody ends has not failed.
func TestStepInterrupted(t *testing.T) {
	for _, interrupt := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out bytes.Buffer
		r := &reporter{w: &out}
		err := r.step(ctx, "build", func(context.Context) (string, error) {
			if interrupt {
				cancel()
			}
			return "", errors.New("signal: interrupt")
		})
		if err == nil {
			t.Error("the step's error is lost")
		}
		want := "FAIL"
		if interrupt {
			want = "end "
		}
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("interrupted %v: %q; want %s", interrupt, &out, want)
		}
	}
}
