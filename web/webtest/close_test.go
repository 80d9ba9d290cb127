package webtest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Clients that come again at once keep no server open.
func TestClose(t *testing.T) {
	for range 20 {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush() // the client may have gone
			<-r.Context().Done()
		}))
		stop, came := make(chan struct{}), make(chan struct{}, 8)
		for range 8 {
			go func() {
				hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				for first := true; ; first = false {
					resp, err := hc.Get(srv.URL)
					if first {
						came <- struct{}{}
					}
					if err == nil {
						_, _ = resp.Body.Read(make([]byte, 1)) // until it is cut
						resp.Body.Close()
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			}()
		}
		for range 8 {
			<-came
		}
		closed := make(chan struct{})
		go func() {
			Close(srv)
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(2 * time.Minute):
			t.Fatal("the server does not end")
		}
		close(stop)
	}
}
