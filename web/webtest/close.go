package webtest

import (
	"net/http/httptest"
	"time"
)

// Close ends a server whose pages are still open: a tab connects again as soon
// as its stream of events is cut, and Close of the server would wait for that one.
func Close(srv *httptest.Server) {
	closed := make(chan struct{})
	go func() {
		srv.Close()
		close(closed)
	}()
	for {
		srv.CloseClientConnections()
		select {
		case <-closed:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
