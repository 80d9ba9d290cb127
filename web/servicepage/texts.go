package servicepage

import (
	"strconv"
	"strings"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
)

// The texts of the pages that are not in the templates.

// Used when the engine has no sentence of its own.
const (
	textCurrent  = "Up to date"
	textPending  = "Update available"
	textUpdating = "Updating"
	textPaused   = "Held back: updates are paused"
	textFailing  = "Failing"

	textUpdatingTo     = "Updating to"
	textGoingBack      = "Going back to"
	textSelfUpdatingTo = "Updating upkeep to"
	textSelfGoingBack  = "Taking upkeep back to"
	textSelfUpgrade    = "Upgrade upkeep now"

	textNoSupervisor = "Failing: its supervisor does not answer"
)

var resultText = map[string]string{
	supervisor.ResultInstalled:  "installed",
	supervisor.ResultRolledBack: "rolled back",
	supervisor.ResultRefused:    "refused",
	supervisor.ResultFailed:     "failed",
	supervisor.ResultCancelled:  "cancelled",
	supervisor.ResultPostponed:  "postponed",
	resultDone:                  "done",
}

// What a restart for a new version means for those who use the service.
var handoverText = map[string]string{
	"retain":     "connections wait, none is refused: its listening sockets stay open",
	"listen-fds": "connections wait, none is refused: its sockets are upkeep's",
	"proxy":      "connections wait in upkeep's proxy, none is refused",
	"restart":    "connections are refused until the new process listens",
}

// resultDone is the result of decisions, such as skip or pause.
const resultDone = "done"

var resultTone = map[string]string{
	supervisor.ResultInstalled:  "good",
	supervisor.ResultRolledBack: "bad",
	supervisor.ResultRefused:    "bad",
	supervisor.ResultFailed:     "bad",
	supervisor.ResultCancelled:  "warn",
	supervisor.ResultPostponed:  "warn",
}

// resultWord is a result in words.
func resultWord(r string) string {
	if text := resultText[r]; text != "" {
		return text
	}
	return r
}

// endTone is the tone of the notice about an update that was not installed.
func endTone(result string) string {
	if resultTone[result] == "warn" {
		return "warn"
	}
	return "bad"
}

// with is a text with what goes before it, "" without the text.
func with(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// withNumber is the same for a number that may be unknown.
func withNumber(before string, n int64) string {
	if n == 0 {
		return ""
	}
	return before + strconv.FormatInt(n, 10)
}

// announcement is what a screen reader says when it has changed.
func (v view) announcement() string {
	switch {
	case v.Update != nil:
		return v.Update.Step
	case v.Self.Update != nil:
		return "upkeep itself: " + v.Self.Update.Step
	}
	return v.Sentence
}

func (v view) pidText() string {
	text := ", pid " + strconv.Itoa(v.Service.Pid)
	if n := v.Service.Restarts; n != 0 {
		text += ", " + strconv.Itoa(n) + " restarts after crashes"
	}
	return text
}

func staleTone(k supervisor.Knowledge) string {
	if k.Silent {
		return "bad"
	}
	return "warn"
}

// record is the entry of the build log that vouches for a binary.
func record(r supervisor.Result) string {
	return "record " + strconv.FormatInt(r.LogIndex, 10) + " of the build log"
}

// proof says who vouches for a binary.
func proof(r supervisor.Result) string {
	text := record(r) + withNumber(", verified at size ", r.LogSize) + with(", built by ", r.Builder)
	return text + with(", which says that the same bytes came out for ", strings.Join(r.Agreed, ", "))
}

// use says that a socket is taken over.
func use(claimed bool) string {
	if claimed {
		return ", in use"
	}
	return ""
}

func goText(goVersion string) string {
	if goVersion == "" {
		return ""
	}
	return " (" + goVersion + ")"
}

// goIfSame tells a binary from the one of the same version that runs.
func goIfSame(p supervisor.Pair, running string) string {
	if p.Version != running {
		return ""
	}
	return goText(p.GoVersion)
}

func keptText(k supervisor.Kept) string {
	text := k.Version + " " + k.GoVersion + ", " + web.Bytes(k.Size)
	if k.Running {
		text += " (running)"
	}
	return text
}

func (v stepsView) heading() string {
	text := v.Title + " " + v.To.Version
	if v.From.GoVersion != v.To.GoVersion {
		text += " with " + v.To.GoVersion
	}
	return text
}

func stepClass(st supervisor.Step) string {
	switch {
	case st.Now:
		return "now"
	case st.Done:
		return "done"
	}
	return ""
}

// menuText completes "Actions" for who does not see the row.
func (l listView) menuText(p supervisor.Pair) string {
	text := " for "
	if l.Self {
		text += "upkeep "
	}
	return text + p.Version + " with " + p.GoVersion
}

// what is the change of version of an entry of the history.
func (r resultView) what() string {
	switch {
	case r.Text == resultDone:
		return r.To.Version
	case r.From.Version == r.To.Version:
		return r.To.Version + ": " + r.From.GoVersion + " → " + r.To.GoVersion
	}
	return r.From.Version + " → " + r.To.Version
}

// kindText is the kind of an entry, "" for plain updates.
func (r resultView) kindText() string {
	switch r.Kind {
	case "", kindUpdate, kindSelfUpdate:
		return ""
	case kindRollback, kindSelfRollback:
		return "roll-back"
	}
	return r.Kind
}

func (r resultView) tookText() string {
	text := "took " + web.Seconds(r.Took)
	if r.Downtime != 0 {
		text += ", service down for " + web.Seconds(r.Downtime)
	}
	return text
}
