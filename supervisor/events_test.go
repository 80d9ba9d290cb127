package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/metric"
)

// The same wrong answer at every poll is one event and one line of the log,
// and each is counted; one that returns after a long time is news again.
func TestEventsRepeated(t *testing.T) {
	dir := t.TempDir()
	cfg := Defaults()
	cfg.State, cfg.Service.Path = filepath.Join(dir, "state"), filepath.Join(dir, "hello")
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	e, err := New(cfg, Deps{Now: func() time.Time { return now }, Kinds: []string{"dns_expired", "dns_stale"},
		Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: metric.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.lock.Unlock()
	e.load()
	poll := func() {
		expired := fmt.Errorf("the signature of TXT x. expired on 2026-11-21 11:00:00 UTC, %d hours ago: this machine's clock (%s)",
			now.Hour(), now.Format("2006-01-02 15:04:05 UTC"))
		known := Known{Events: []Event{{Kind: "dns_stale", Security: true, Text: "its log was last read 7 hours ago"}}}
		e.learned("example.org/hello", known, &VerificationError{"dns_expired", expired})
	}
	const polls = 10
	for range polls {
		poll()
		now = now.Add(time.Hour)
	}
	if len(e.doc.Events) != 2 || e.doc.Events[0].Count != polls || e.doc.Events[1].Count != polls {
		t.Errorf("events %+v", e.doc.Events)
	}
	ev := e.doc.Events[0]
	if ev.Time.Sub(ev.First) != (polls-1)*time.Hour || !strings.Contains(ev.Text, "21:00:00") {
		t.Errorf("event %+v; want the newest text and both times", ev)
	}
	for _, k := range []string{"dns_expired", "dns_stale"} {
		if got := e.metrics.verifications.With(k).Value(); got != polls {
			t.Errorf("%v of %s counted", got, k)
		}
		if got := strings.Count(log.String(), "kind="+k); got != 1 {
			t.Errorf("%s is logged %d times:\n%s", k, got, log.String())
		}
	}
	if got := strings.Count(log.String(), "can't be learned"); got != 1 {
		t.Errorf("the failure is logged %d times", got)
	}
	now = now.Add(goneAfter)
	poll()
	if got := strings.Count(log.String(), "kind=dns_expired"); got != 2 {
		t.Errorf("after a pause it is logged %d times; want again", got)
	}
	e.addEvent(Event{Kind: "dns_expired", Security: true, Text: "the signature of TXT y. expired"})
	if len(e.doc.Events) != 3 {
		t.Errorf("another event is not kept: %+v", e.doc.Events)
	}
	e.learned("example.org/hello", Known{}, errors.New("no route"))
	if !strings.Contains(log.String(), "no route") {
		t.Error("another failure is not logged")
	}
}
