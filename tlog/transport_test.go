package tlog

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Low limits make following slow and nothing else, however many tiles wait: an
// answer's time begins when it is asked for. The clock is a false one.
func TestLowLimits(t *testing.T) {
	for _, limits := range []Limits{{Requests: 0.05}, {Bytes: 20_000}} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int64
			hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				asked.Add(1)
				time.Sleep(time.Second)
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), Request: r}, nil
			})}
			tr, err := newTransport("http://log.example.org", hc, limits, nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					if data, err := tr.getSoon(t.Context(), "x", 2<<20); err != nil || len(data) != 1<<20 {
						t.Errorf("%+v: %d bytes, %v", limits, len(data), err)
					}
				})
			}
			wg.Wait()
			// 4 MB are free and 12 MB come 20 kB a second; or one request is free and 15 wait 20 seconds each.
			if d := time.Since(start); asked.Load() != 16 || d < 5*time.Minute || d > 12*time.Minute {
				t.Errorf("%+v: %d requests in %v", limits, asked.Load(), d)
			}
		})
	}
	// The time of an answer is bounded all the same.
	synctest.Test(t, func(t *testing.T) {
		hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}
		tr, err := newTransport("http://log.example.org", hc, Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := tr.getSoon(t.Context(), "x", 1); err == nil || time.Since(start) != answerTimeout {
			t.Errorf("a server that says nothing: %v after %v; want an error after %v", err, time.Since(start), answerTimeout)
		}
	})
}
