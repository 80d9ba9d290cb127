package tlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"example.org/upkeep/internal/httpget"
)

// Limits on answers, in bytes.
const (
	maxNote     = 64 << 10
	maxLookup   = 1 << 20
	maxHashTile = 256 * 32
	maxDataTile = 4 << 20

	answerTimeout = time.Minute // for one answer that needs no work at the server
)

// Limits bound the traffic to a log's server. Zero means no limit.
type Limits struct {
	Requests float64 // a second
	Bytes    float64 // a second
}

// A transport gets files below the base address of a log.
type transport struct {
	base     string
	dir      string // instead of base, for a log that is a folder on this machine
	hc       *http.Client
	requests *rate.Limiter
	bytes    *rate.Limiter
	metrics  *clientMetrics
}

func newTransport(base string, hc *http.Client, limits Limits, m *clientMetrics) (*transport, error) {
	t := &transport{hc: hc, metrics: m}
	if limits.Requests > 0 {
		t.requests = rate.NewLimiter(rate.Limit(limits.Requests), max(1, int(limits.Requests)))
	}
	if limits.Bytes > 0 {
		// An answer's size is known only afterwards: the burst must hold the largest.
		t.bytes = rate.NewLimiter(rate.Limit(limits.Bytes), max(maxDataTile, int(limits.Bytes)))
	}
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return nil, fmt.Errorf("address of the log: %w", err)
	case u.Scheme == "file" && u.Host == "" && u.Path != "":
		t.dir = filepath.FromSlash(u.Path)
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == "":
		t.base = strings.TrimSuffix(base, "/")
	default:
		return nil, fmt.Errorf("address of the log %q is not an http, https or file URL", base)
	}
	if t.hc == nil {
		tr := http.DefaultTransport.(*http.Transport).Clone()
		tr.MaxIdleConnsPerHost = 64 // tiles are fetched side by side
		tr.ResponseHeaderTimeout = 0
		tr.MaxResponseHeaderBytes = 64 << 10
		t.hc = &http.Client{Transport: tr}
	}
	return t, nil
}

// get reads the file at path, which starts without a slash, at most max bytes. An
// answer may take until ctx ends, or timeout if that is not 0: waiting for the
// limits on traffic does not count, however many wait.
func (t *transport) get(ctx context.Context, path string, max int64, timeout time.Duration) ([]byte, error) {
	if t.dir != "" {
		return readFile(filepath.Join(t.dir, filepath.FromSlash(path)), max)
	}
	if t.requests != nil {
		if err := t.requests.Wait(ctx); err != nil {
			return nil, err
		}
	}
	asking := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	data, err := httpget.Get(asking, t.hc, t.base+"/"+path, max)
	t.metrics.request(err, len(data))
	if t.bytes != nil && len(data) > 0 {
		if err := t.bytes.WaitN(ctx, min(len(data), t.bytes.Burst())); err != nil {
			return nil, err
		}
	}
	return data, err
}

// getSoon is get for answers that need no work at the server.
func (t *transport) getSoon(ctx context.Context, path string, max int64) ([]byte, error) {
	return t.get(ctx, path, max, answerTimeout)
}

// readFile reads a whole file of at most max bytes.
func readFile(name string, max int64) ([]byte, error) {
	if fi, err := os.Stat(name); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() { // opening a pipe would wait for its other end, whatever signal comes
		return nil, fmt.Errorf("%s is not a regular file (%v): remove it", name, fi.Mode().Type())
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("reading %s: %w (%d bytes)", name, httpget.ErrTooLarge, max)
	}
	return data, nil
}

// missing reports whether an error says that the file does not exist.
func missing(err error) bool {
	var se *httpget.StatusError
	return errors.As(err, &se) && se.NotFound() || errors.Is(err, fs.ErrNotExist)
}

// refused reports whether an error says that the server will never give the file.
func refused(err error) bool {
	var se *httpget.StatusError
	return errors.As(err, &se) && se.Code/100 == 4 && !se.Temporary() || errors.Is(err, fs.ErrNotExist)
}

// Delays between attempts.
const (
	firstDelay = 250 * time.Millisecond
	maxDelay   = 30 * time.Second
)

// delay returns how long to wait after the attempt-th failure (from 0): a
// doubled delay with jitter, or what the server asked for, if that is longer.
func delay(attempt int, err error, jitter float64) time.Duration {
	d := min(firstDelay<<min(attempt, 16), maxDelay)
	d = d/2 + time.Duration(jitter*float64(d))
	var se *httpget.StatusError
	if errors.As(err, &se) {
		d = max(d, se.RetryAfter)
	}
	return d
}

// tellWait says that a server wants to be left alone for long: else following
// would seem to hang.
func tellWait(log *slog.Logger, d time.Duration, err error) {
	if d > 2*maxDelay {
		log.Warn("the log's server asks to wait", "for", d.Round(time.Second), "err", err)
	}
}

// retry calls try until it succeeds, fails for good, or has failed attempts times.
func retry(ctx context.Context, attempts int, log *slog.Logger, try func() error) error {
	for i := 0; ; i++ {
		err := try()
		if err == nil || refused(err) || errors.Is(err, httpget.ErrTooLarge) || i == attempts-1 {
			return err
		}
		d := delay(i, err, rand.Float64())
		tellWait(log, d, err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last error: %w)", context.Cause(ctx), err)
		case <-time.After(d):
		}
	}
}
