package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"time"
)

// journalFailed decides what to do when the journal can't be written. It
// reports whether to go on to the state all the same.
func (e *Engine) journalFailed(u *update, from, to State, err error) bool {
	if from.touched() || to == StateIdle || to == StateScheduled {
		// Going on in memory is what a restart would do from the old journal
		// too: it finds a state in which the service was touched and undoes it.
		switch to {
		case StateSwitching, StateStarting:
			e.doc.Update.State = from
			e.work = nil
			e.event(evFail, "the journal can't be written: "+err.Error())
			return false
		case StateCommitted:
			// The new version is good but that isn't on disk: stay in probation
			// and try again, or a restart would roll it back.
			u.State, u.StepsDone = from, u.StepsDone[:len(u.StepsDone)-1]
			u.unwritten = true
			e.changed()
			time.AfterFunc(saveRetry, func() {
				e.post(func() {
					if e.doc.Update == u && u.State == StateProbation && e.proc != nil {
						e.event(evDone, "")
					}
				})
			})
			return false
		}
		return true
	}
	// Nothing was touched: give up.
	u.State = StateIdle
	u.Reason = "the journal can't be written: " + err.Error()
	e.leave(u, from, evFail)
	e.overtake(func() { e.enter(u, StateIdle) })
	e.changed()
	return false
}

// saveRetry is the wait after a failed write; a variable for tests.
var saveRetry = 5 * time.Second

// save writes the document. What can't be written is tried again later.
func (e *Engine) save() error {
	if e.lock == nil {
		if e.stateErr == nil {
			e.stateErr = errors.New("the state folder can't be used")
		}
		return e.stateErr
	}
	err := e.file.Save(e.doc)
	if err == nil {
		if e.stateErr != nil {
			e.log.Info("the state folder can be written again")
		}
		e.stateErr, e.dirty, e.saved = nil, false, e.now()
		e.metrics.stateOK.Set(1)
		return nil
	}
	e.metrics.stateOK.Set(0)
	if e.stateErr == nil {
		e.log.Error("the state can't be written; updates are off until it can", "err", err)
		e.addEvent(Event{Kind: "state_unwritable", Text: err.Error()})
	}
	e.stateErr, e.dirty = err, true
	if e.saveTimer == nil {
		e.saveTimer = time.AfterFunc(saveRetry, func() {
			e.post(func() {
				e.saveTimer = nil
				if e.dirty && e.save() == nil {
					e.replan()
				}
			})
		})
	}
	return err
}

// addEvent keeps something that a person should know. What is found again and
// again, such as the same wrong answer at each poll, is one event that counts,
// and is logged when it begins.
func (e *Engine) addEvent(ev Event) {
	now := e.now()
	if ev.Security {
		e.metrics.verification(ev.Kind)
	}
	level := slog.LevelWarn
	ev.Time, ev.First, ev.Count = now, now, 1
	if i := slices.IndexFunc(e.doc.Events, func(old Event) bool {
		return old.Kind == ev.Kind && old.Version == ev.Version && sameText(old.Text, ev.Text)
	}); i >= 0 {
		old := e.doc.Events[i]
		ev.First, ev.Count = old.First, old.Count+1
		if ago := now.Sub(old.Time); ago >= 0 && ago < goneAfter {
			level = slog.LevelDebug
		}
		e.doc.Events = slices.Delete(e.doc.Events, i, i+1)
	}
	e.log.Log(context.Background(), level, "event", "kind", ev.Kind, "security", ev.Security, "count", ev.Count, "text", ev.Text)
	e.doc.Events = slices.Insert(e.doc.Events, 0, ev)
	e.doc.Events = e.doc.Events[:min(len(e.doc.Events), maxEvents)]
	e.dirty = true
	e.changed()
}

// goneAfter is how long an event has to stay away for its return to be news.
const goneAfter = 12 * time.Hour

// sameText reports whether two texts differ in times only: when it is now, and
// how long ago something was.
func sameText(a, b string) bool {
	return a == b || times.ReplaceAllString(a, "#") == times.ReplaceAllString(b, "#")
}

var times = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} UTC|[0-9]+ (seconds|minutes|hours|days)`)

const maxEvents = 50
