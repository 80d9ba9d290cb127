package servicepage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web/login"
)

// A webhook brings notices that there is something to look for. They come from
// other machines, many at once when something is published: one look answers
// all those of a minute.
const (
	noticePause = time.Minute
	maxNotices  = 30 // in one pause, more are refused
)

// notices merges requests to look for new versions.
type notices struct {
	mu    sync.Mutex
	next  time.Time // before it no look begins
	timer *time.Timer
	count int       // requests since
	since time.Time // begin of the pause that is counted in
}

// take returns how long it takes to the look that answers a request, and
// whether one has to begin at once. ok is false when there are too many.
func (n *notices) take(now time.Time, look func()) (wait time.Duration, begin, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.since) >= noticePause || now.Before(n.since) {
		n.since, n.count = now, 0
	}
	if n.count++; n.count > maxNotices {
		return n.since.Add(noticePause).Sub(now), false, false
	}
	wait = min(n.next.Sub(now), noticePause) // a clock that was put back must not stop it
	switch {
	case n.timer != nil: // will be answered by the one that is to come
	case wait <= 0:
		n.next = now.Add(noticePause)
		return 0, true, true
	default:
		n.timer = time.AfterFunc(wait, func() {
			n.mu.Lock()
			n.timer, n.next = nil, now.Add(wait+noticePause)
			n.mu.Unlock()
			look()
		})
	}
	return max(wait, 0), false, true
}

// notify has new versions looked for. Nothing in the request is believed.
func (s *server) notify(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Login == nil || login.Name(r.Context()) == "" {
		writeError(w, http.StatusForbidden, errors.New(`this needs a token with the scope notify, and a login on the page: see "upkeep passwd" and "upkeep token"`))
		return
	}
	look := func(ctx context.Context) error {
		return s.ctl.Do(ctx, supervisor.Action{Verb: supervisor.VerbCheck, By: who(r)})
	}
	wait, begin, ok := s.notices.take(s.now(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := look(ctx); err != nil {
			s.log.Warn("new versions are not looked for", "by", who(r), "err", err)
		}
	})
	if !ok {
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())+1))
		writeError(w, http.StatusTooManyRequests, fmt.Errorf("more than %d notices in %v", maxNotices, noticePause))
		return
	}
	if begin {
		if err := look(r.Context()); err != nil {
			writeError(w, http.StatusServiceUnavailable, err)
			return
		}
	}
	writeJSON(w, http.StatusAccepted, struct {
		Seconds int `json:"looks_in_seconds"`
	}{int((wait + time.Second - 1) / time.Second)})
}
