package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// keepAlive is how often a silent stream of events says that it lives, so that
// proxies in between don't end it and a vanished viewer is noticed.
const keepAlive = 20 * time.Second

// eventWrite bounds how long one event may take to reach a slow viewer.
const eventWrite = 15 * time.Second

// A Stream writes server-sent events to one viewer.
type Stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// NewStream starts an answer that is a stream of server-sent events.
func NewStream(w http.ResponseWriter) (*Stream, error) {
	s := &Stream{w, http.NewResponseController(w)}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // asks proxies in front not to hold events back
	// A server's read timeout would otherwise end a stream that only writes.
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("starting a stream of events: %w", err)
	}
	w.WriteHeader(http.StatusOK)
	_ = s.write(": hello\n\n") // a viewer who has gone is noticed by the next event
	return s, nil
}

// Send writes one event; data that is not a string is written as JSON.
func (s *Stream) Send(event string, data any) error {
	text, ok := data.(string)
	if !ok {
		b, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("writing an event: %w", err)
		}
		text = string(b)
	}
	var b strings.Builder
	if event != "" {
		fmt.Fprintf(&b, "event: %s\n", event)
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(&b, "data: %s\n", strings.ReplaceAll(line, "\r", ""))
	}
	b.WriteString("\n")
	return s.write(b.String())
}

func (s *Stream) write(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(eventWrite)); err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	return nil
}

// Wait returns true after the next change, and false when the viewer has gone
// away or changed is closed. Before it listens it pauses, so that what happens
// at once is told as one.
func (s *Stream) Wait(ctx context.Context, changed <-chan struct{}, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-changed:
			return ok
		case <-alive.C:
			if s.write(": alive\n\n") != nil {
				return false
			}
		}
	}
}

// ServeChanges tells a viewer that something has changed, until the viewer
// goes away or changed is closed. A new viewer is told at once, since the page
// may be older than the connection.
func ServeChanges(w http.ResponseWriter, r *http.Request, changed <-chan struct{}, pause time.Duration) {
	s, err := NewStream(w)
	if err != nil {
		http.Error(w, "this connection cannot carry a stream of events", http.StatusInternalServerError)
		return
	}
	for {
		if s.Send("change", "{}") != nil || !s.Wait(r.Context(), changed, pause) {
			return
		}
	}
}
