package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// visitors ask the service for its page all the time, each with a connection
// of its own, and count what becomes of it.
type visitors struct {
	mu                  sync.Mutex
	asked, refused, cut int
	longest             time.Duration
	last                error

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// visitInterval is the time between two visits.
const visitInterval = 20 * time.Millisecond

func visit(ctx context.Context, url string) *visitors {
	ctx, stop := context.WithCancel(ctx)
	v := &visitors{stop: stop}
	v.wg.Go(func() {
		tick := time.NewTicker(visitInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				v.wg.Go(func() { v.one(ctx, url) })
			}
		}
	})
	return v
}

func (v *visitors) one(ctx context.Context, url string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	resp, err := client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if ctx.Err() != nil {
		return // it was us who ended it
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	v.longest = max(v.longest, time.Since(began))
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED):
		v.refused++
		v.last = err
	default:
		v.cut++
		v.last = err
	}
}

// leave ends the visits and says how they went. With keeps nobody may be
// refused. A service on Multipath TCP, as Go's are by default, may in rare
// cases still cut off one whose request it had begun to read.
func (v *visitors) leave(keeps bool) (string, error) {
	v.stop()
	v.wg.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	text := fmt.Sprintf("%d visits meanwhile, %d lost, the longest took %v", v.asked, v.refused+v.cut, v.longest.Round(time.Millisecond))
	if keeps && (v.refused > 0 || v.cut > 1+v.asked/100) {
		return text, fmt.Errorf("%s: %d refused, %d cut off, the last: %w", text, v.refused, v.cut, v.last)
	}
	return text, nil
}
