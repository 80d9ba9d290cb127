package supervisor

import (
	"fmt"
	"time"

	"example.org/upkeep/supervisor/policy"
)

// appointment is an update that a person asked for, for a time to come.
type appointment struct {
	Pair
	Step   string    `json:"step"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

const (
	// maxAhead is how far ahead an update may be asked for.
	maxAhead = 366 * 24 * time.Hour
	// maxLate is how late it may go, when upkeep did not run at its time.
	maxLate = time.Hour
)

// appoint notes an update for a time. It replaces the one noted before.
func (e *Engine) appoint(a Action) error {
	now := e.now()
	switch {
	case a.At.IsZero():
		return refuse("say when, like 2026-12-24T03:00:00Z")
	case !a.At.After(now):
		return refuse("%s is over", a.At.Format(time.RFC3339))
	case a.At.Sub(now) > maxAhead:
		return refuse("%s is more than a year ahead", a.At.Format(time.RFC3339))
	case e.infoErr != nil:
		return refuse("%v", e.infoErr)
	}
	p, step, err := policy.Resolve(e.policyInput(), a.Version, a.GoVersion)
	if err != nil {
		return refuse("%v", err)
	}
	s := e.specFor(pairOf(p))
	if err := s.Check(); err != nil {
		return refuse("%v", err)
	}
	old := e.doc.Appointment
	e.doc.Appointment = &appointment{pairOf(p), step, a.At, a.By, a.Reason}
	if err := e.save(); err != nil {
		e.doc.Appointment = old
		return refuse("the decision can't be kept: %v", err)
	}
	e.recordDecision(a, pairOf(p))
	e.replan()
	return nil
}

// disappoint takes an appointment back.
func (e *Engine) disappoint(a Action) error {
	old := e.doc.Appointment
	e.doc.Appointment = nil
	if err := e.save(); err != nil {
		e.doc.Appointment = old
		return refuse("the decision can't be kept: %v", err)
	}
	e.recordDecision(a, old.Pair)
	e.replan()
	return nil
}

func (e *Engine) recordDecision(a Action, to Pair) {
	e.record(Result{ID: e.now().UTC().Format("20060102T150405.000"), Kind: a.Verb, Result: "done", Reason: a.Reason, By: a.By,
		From: e.running(), To: to, Started: e.now(), Ended: e.now()})
	e.log.Info("decision", "verb", a.Verb, "version", to.Version, "go_version", to.GoVersion, "at", a.At, "by", a.By)
}

// keepAppointment begins what somebody asked for when its time has come, and
// reports whether the plan is settled by that. It waits for no window.
func (e *Engine) keepAppointment() bool {
	ap := e.doc.Appointment
	if ap == nil {
		return false
	}
	drop := func(why string) bool {
		e.doc.Appointment, e.dirty = nil, true
		if why != "" {
			e.addEvent(Event{Kind: "schedule_missed", Version: ap.Version, Text: fmt.Sprintf("the update to %s, asked for by %s for %s, was given up: %s",
				ap.Pair, ap.By, ap.At.UTC().Format("2006-01-02 15:04 UTC"), why)})
		}
		return false
	}
	now := e.now()
	switch {
	case ap.Pair == e.running():
		return drop("")
	case now.Sub(ap.At) > maxLate:
		return drop("it could not be begun at its time")
	case ap.At.After(now):
		e.appointIn(ap.At.Sub(now))
		if c := e.decision.Candidate; c == nil || pairOf(c.Pair) != ap.Pair {
			return false
		}
		// It would go by itself at another time.
		if e.doc.Update != nil {
			e.event(evUnplan, "")
		}
		return true
	case e.deps.UpdatesErr != nil || e.infoErr != nil || e.stateErr != nil:
		e.appointIn(replanMax)
		return false
	}
	p, step, err := policy.Resolve(e.policyInput(), ap.Version, ap.GoVersion)
	if err != nil {
		return drop(err.Error())
	}
	e.doc.Appointment = nil
	delete(e.doc.Failures, pairOf(p).String())
	e.launch(e.newUpdate(kindUpdate, step, pairOf(p), ap.By, true))
	return true
}

// appointIn looks at the appointment again after a time.
func (e *Engine) appointIn(d time.Duration) {
	if e.appointTimer != nil {
		e.appointTimer.Stop()
	}
	e.appointTimer = time.AfterFunc(min(d, replanMax), func() { e.post(e.replan) })
}

// appointed shows an appointment.
func (e *Engine) appointed() *Scheduled {
	ap := e.doc.Appointment
	if ap == nil {
		return nil
	}
	return &Scheduled{ap.Pair, ap.At, ap.By, ap.Reason}
}
