package servicepage

import "example.org/upkeep/supervisor"

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
