package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A slowBody gives a byte after each pause, and breaks at its end unless it is whole.
type slowBody struct {
	ctx   context.Context
	text  string
	pause time.Duration
	whole bool
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.text == "" {
		if b.whole {
			return 0, io.EOF
		}
		return 0, io.ErrUnexpectedEOF
	}
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(b.pause):
	}
	p[0], b.text = b.text[0], b.text[1:]
	return 1, nil
}

func (*slowBody) Close() error { return nil }

// How a download goes on after its first answer broke, or waits for it.
func TestResuming(t *testing.T) {
	const text = "0123456789"
	answer := func(r *http.Request, status int, body slowBody, header ...string) *http.Response {
		body.ctx = r.Context()
		resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: &body, Request: r}
		for i := 0; i < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
		return resp
	}
	broken := func(r *http.Request) *http.Response {
		return answer(r, 200, slowBody{text: text[:5]}, "ETag", `"a"`)
	}
	for _, tc := range []struct {
		name  string
		serve func(n int, r *http.Request) *http.Response
		err   error
	}{
		{"the first answer waits for a build", func(n int, r *http.Request) *http.Response {
			select {
			case <-r.Context().Done():
				return nil
			case <-time.After(10 * time.Minute):
			}
			return answer(r, 200, slowBody{text: text, whole: true})
		}, nil},
		{"no byte after the headers", func(n int, r *http.Request) *http.Response {
			return answer(r, 200, slowBody{text: text, pause: time.Hour})
		}, errStalled},
		{"slow, but not silent, from the start again", func(n int, r *http.Request) *http.Response {
			if n == 0 {
				return broken(r)
			}
			return answer(r, 200, slowBody{text: text, pause: 20 * time.Second, whole: true}, "ETag", `"a"`)
		}, nil},
		{"silent while it starts again", func(n int, r *http.Request) *http.Response {
			if n == 0 {
				return broken(r)
			}
			return answer(r, 200, slowBody{text: text, pause: time.Hour}, "ETag", `"a"`)
		}, errStalled},
		{"the part asked for", func(n int, r *http.Request) *http.Response {
			if n == 0 {
				return broken(r)
			}
			return answer(r, 206, slowBody{text: text[5:], whole: true}, "Content-Range", "bytes 5-9/10", "ETag", `"a"`)
		}, nil},
		{"another part", func(n int, r *http.Request) *http.Response {
			if n == 0 {
				return broken(r)
			}
			return answer(r, 206, slowBody{text: text[4:], whole: true}, "Content-Range", "bytes 4-9/10")
		}, errChanged},
		{"another file", func(n int, r *http.Request) *http.Response {
			if n == 0 {
				return broken(r)
			}
			return answer(r, 200, slowBody{text: "abcdefghij", whole: true}, "ETag", `"b"`)
		}, errChanged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := -1
				hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					n++
					if off := r.Header.Get("Range"); n > 0 && off != "bytes="+strconv.Itoa(5)+"-" && tc.err != errStalled {
						t.Errorf("asked for %q", off)
					}
					if resp := tc.serve(n, r); resp != nil {
						return resp, nil
					}
					return nil, r.Context().Err()
				})}
				body := &resuming{ctx: t.Context(), hc: hc, url: "http://builder.example.org/x", left: 100}
				defer body.Close()
				var got []byte
				err := body.open()
				if err == nil {
					got, err = io.ReadAll(body)
				}
				if !errors.Is(err, tc.err) || err == nil && string(got) != text {
					t.Fatalf("got %q, %v; want %v", got, err, tc.err)
				}
				if tc.err == errChanged && (n != 1 || !strings.HasPrefix(text, string(got))) {
					t.Fatalf("%d answers, %q", n+1, got)
				}
			})
		})
	}
}
