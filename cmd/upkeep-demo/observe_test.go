package main

import (
	"context"
	"errors"
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
