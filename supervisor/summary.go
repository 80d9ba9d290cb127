package supervisor

import (
	"fmt"
	"time"

	"example.org/upkeep/supervisor/policy"
)

// summary is the one sentence and the code.
func (e *Engine) summary(s *Status) (Code, string) {
	last, user := e.doc.Last, e.conf().userWarning()
	switch {
	case s.Update != nil && s.Update.State == StateRollingBack:
		return CodeUpdating, fmt.Sprintf("Going back to %s: %s", s.Update.From.Version, e.doc.Update.Reason)
	case s.Update != nil && e.doc.Update.unwritten:
		return CodeFailing, fmt.Sprintf("%s runs and has proved itself, but that can't be written down, so a restart would go back to %s: %s",
			s.Update.To.Version, s.Update.From.Version, s.Self.StateErr)
	case s.Update != nil:
		return CodeUpdating, fmt.Sprintf("Updating to %s: %s.", s.Update.To.Version, s.Update.Step)
	case !s.Service.Running:
		return CodeFailing, "The service is down: it " + orText(e.lastExit, "was not started") + "."
	case s.Self.StateErr != "":
		return CodeFailing, "Updates are off: " + s.Self.StateErr
	case e.deps.UpdatesErr != nil:
		return CodeFailing, "Updates are off: " + s.Self.ConfigErr
	case s.Self.ConfigErr != "":
		return CodeFailing, "The configuration on disk is wrong, the one before is in force: " + s.Self.ConfigErr
	case user != "":
		return CodeFailing, "T" + user[1:] + "."
	case e.infoErr != nil:
		return CodeFailing, "Updates are off: " + e.infoErr.Error()
	case e.doc.Repair != "":
		return CodeFailing, fmt.Sprintf("%s still stands for a version that was rolled back and can't be put right; %s runs.", s.Service.Path, s.Service.Version)
	}
	c := s.Plan.Candidate
	if c != nil && last != nil && last.To == c.Pair && (last.Result == ResultRefused || last.Result == ResultFailed) {
		return CodeFailing, fmt.Sprintf("The update to %s %s: %s", c.Version, last.Words(), last.Reason)
	}
	if s.Knowledge.Silent {
		text := "No fresh answer about versions since " + s.Knowledge.StaleSince.Local().Format("Mon 2 Jan 15:04") + ", answers may be dropped on the way"
		if s.Knowledge.Error != "" {
			text += ": " + s.Knowledge.Error
		}
		return CodeFailing, text
	}
	if s.Knowledge.Unavailable && (s.Knowledge.Fresh.IsZero() || s.Now.Sub(s.Knowledge.Fresh) > maxBlind+2*e.conf().Updates.Interval.D() || len(s.Events) > 0 && s.Events[0].Security && s.Now.Sub(s.Events[0].Time) < maxBlind) {
		return CodeFailing, "New versions can't be learned: " + s.Knowledge.Error
	}
	switch {
	case c == nil && last != nil && last.Result == ResultRolledBack && e.doc.skipped(last.To):
		return CodePending, fmt.Sprintf("%s was rolled back: %s", last.To.Version, last.Reason)
	case c == nil && s.Knowledge.Fresh.IsZero():
		return CodeCurrent, "Waiting for the first answer about versions."
	case c == nil && e.decision.Reason == "the newest version runs":
		return CodeCurrent, "Up to date."
	case c == nil:
		return CodeCurrent, "Nothing to install; " + e.decision.Reason + "."
	case s.Paused:
		return CodePaused, fmt.Sprintf("%s is available; updates are paused.", c.Version)
	case !s.Plan.Automatic:
		return CodePending, fmt.Sprintf("%s is available, not installed by itself: %s.", describeCandidate(c), s.Plan.Reason)
	}
	return CodePending, fmt.Sprintf("Update to %s %s.", describeCandidate(c), whenWords(s.Now, c.When))
}

// Words say how an update ended that touched nothing, in a sentence about it.
func (r *Result) Words() string {
	if r.Result == ResultFailed {
		return r.Result
	}
	return "was " + r.Result // refused or cancelled
}

// maxBlind is how long discovery may fail before the status is "failing".
const maxBlind = time.Hour

func describeCandidate(c *Candidate) string {
	if c.Kind == policy.KindToolchain {
		return c.Version + " built with " + c.GoVersion
	}
	return c.Version
}

func whenWords(now, t time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "never: its windows don't open"
	case d <= 0:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("in %d seconds", int(d.Seconds())+1)
	case d < 2*time.Hour:
		return fmt.Sprintf("in %d minutes", int(d.Minutes())+1)
	}
	return t.Local().Format("on Mon 2 Jan at 15:04")
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
