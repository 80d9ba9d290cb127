package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/tlog"
)

// Lookup returns the verified record of a build. For one that the builder does
// not have yet, it starts the build and waits, for minutes if need be; progress
// (which may be nil) is told where the builder is, by the builder's own words.
func (f *Fetcher) Lookup(ctx context.Context, s spec.Spec, progress func(Progress)) (Proof, error) {
	if err := s.Check(); err != nil {
		return Proof{}, err
	}
	p, err := f.lookup(ctx, s, progress)
	f.m.result(err)
	return p, err
}

func (f *Fetcher) lookup(ctx context.Context, s spec.Spec, progress func(Progress)) (Proof, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.BuildTimeout.D(),
		fmt.Errorf("the builder %s did not have %s ready within build_timeout (%s)", f.base, s, f.cfg.BuildTimeout))
	defer cancel()
	// The log is checked before anything is asked of it: with a wrong key or a
	// forked log no build is started and nothing is downloaded.
	if _, err := f.builder.Update(ctx); err != nil {
		return Proof{}, f.logError(ctx, err)
	}
	if progress != nil {
		var wg sync.WaitGroup
		watch, stop := context.WithCancel(ctx)
		wg.Go(func() { f.watch(watch, s, progress) })
		defer wg.Wait()
		defer stop()
	}
	rec, err := f.builder.Lookup(ctx, s.String())
	if err != nil {
		var se *httpget.StatusError
		permanent := errors.Is(err, tlog.ErrNotFound)
		if errors.As(err, &se) && (permanent || se.Code == http.StatusInternalServerError || se.Code == http.StatusBadRequest) {
			return Proof{}, &BuildError{Spec: s, Permanent: permanent || se.Code == http.StatusBadRequest, Text: se.Text, URL: f.Page(s), Err: err}
		}
		return Proof{}, f.logError(ctx, err)
	}
	p, err := check(s, rec)
	if err == nil {
		err = f.details(ctx, &p)
	}
	if err != nil {
		return Proof{}, err
	}
	return p, nil
}

// check compares a record of the log with what was asked for.
func check(s spec.Spec, rec tlog.Record) (Proof, error) {
	r, err := spec.ParseRecord(rec.Data)
	if err != nil {
		return Proof{}, &VerifyError{Kind: RecordMismatch, Err: fmt.Errorf("record %d of the builder's log: %w", rec.ID, err)}
	}
	if r.Spec != s {
		return Proof{}, &VerifyError{Kind: RecordMismatch, Err: fmt.Errorf("the builder's log answers the lookup of %s with record %d, which is for %s", s, rec.ID, r.Spec)}
	}
	return Proof{Record: r, Index: rec.ID, Head: rec.Head}, nil
}

// Update fetches and verifies the builder's newest tree head.
func (f *Fetcher) Update(ctx context.Context) (tlog.TreeHead, error) {
	h, err := f.builder.Update(ctx)
	if err != nil {
		err = f.logError(ctx, err)
	}
	f.m.result(err)
	return h, err
}

func (f *Fetcher) logError(ctx context.Context, err error) error {
	return classify(ctx, err, map[string]string{"fork": LogFork, "signature": BadSignature, "stale": LogStale, "bad": BadLog})
}

// classify turns the log client's errors into a VerifyError where they mean
// that something does not verify, rather than that the network failed.
func classify(ctx context.Context, err error, kinds map[string]string) error {
	var fork *tlog.ForkError
	switch {
	case errors.As(err, &fork):
		return &VerifyError{Kind: kinds["fork"], Err: err}
	case errors.Is(err, tlog.ErrSignature):
		return &VerifyError{Kind: kinds["signature"], Err: err}
	case errors.Is(err, tlog.ErrStale):
		return &VerifyError{Kind: kinds["stale"], Err: err}
	case errors.Is(err, tlog.ErrInconsistent):
		return &VerifyError{Kind: kinds["bad"], Err: err}
	case errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) != nil:
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// Page returns the builder's page about a build.
func (f *Fetcher) Page(s spec.Spec) string { return f.base + "/" + s.String() }
