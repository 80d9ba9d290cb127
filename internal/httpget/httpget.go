// Package httpget reads bounded answers from HTTP servers that are not trusted.
//
// Nothing is believed of the other side: an answer longer than the caller's
// limit is an error, never a cut answer, and an error page is cut to one line
// before it is shown.
package httpget

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrTooLarge is returned for an answer that is longer than allowed.
var ErrTooLarge = errors.New("answer is larger than allowed")

// A StatusError is an answer other than 200.
type StatusError struct {
	URL        string
	Code       int
	Text       string        // first line of the body, cut and without control characters
	RetryAfter time.Duration // from the Retry-After header, 0 if there is none
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s answered %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// NotFound reports whether the server said that the thing does not exist (404 or 410).
func (e *StatusError) NotFound() bool {
	return e.Code == http.StatusNotFound || e.Code == http.StatusGone
}

// Temporary reports whether the same request may succeed later.
func (e *StatusError) Temporary() bool {
	return e.Code == http.StatusTooManyRequests || e.Code == http.StatusRequestTimeout || e.Code >= 500
}

// Get reads the answer to a GET of url, at most max bytes of it.
func Get(ctx context.Context, hc *http.Client, url string, max int64) ([]byte, error) {
	body, err := Open(ctx, hc, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, max+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", redacted(url), err)
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("reading %s: %w (%d bytes)", redacted(url), ErrTooLarge, max)
	}
	return data, nil
}

// redacted is a URL that was asked without its password.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(malformed)"
	}
	return u.Redacted()
}

// Open starts a GET of url and returns its body, which the caller bounds and closes.
func Open(ctx context.Context, hc *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	if err := Check(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// Check returns a [*StatusError] unless the answer's status is 200 or 206.
func Check(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // the status alone says enough
	return &StatusError{
		URL:        resp.Request.URL.Redacted(),
		Code:       resp.StatusCode,
		Text:       Line(string(body), 300),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
	}
}

// Line makes foreign text fit for one line of a message: its first line, at
// most max bytes, without control characters.
func Line(s string, max int) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "…"
	}
	return s
}

func retryAfter(h string) time.Duration {
	if n, err := strconv.Atoi(h); err == nil && n >= 0 {
		return time.Duration(min(n, 24*3600)) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return min(max(time.Until(t), 0), 24*time.Hour)
	}
	return 0
}
