package supervisor

import "fmt"

// State is where an update stands. It is what the journal records.
type State string

// The states of an update, in order.
const (
	StateIdle        State = "idle"
	StateScheduled   State = "scheduled"    // chosen, waits for its time
	StateFetching    State = "fetching"     // build, download and verification; the old version runs untouched
	StateVerified    State = "verified"     // the new binary is on disk under its final name, the before-update hook runs
	StateStopping    State = "stopping"     // the old process is being stopped
	StateSwitching   State = "switching"    // the symlink is being replaced
	StateStarting    State = "starting"     // the new process is being started
	StateProbation   State = "probation"    // the new process has to prove itself
	StateWatched     State = "watched"      // a new upkeep is in command, and the one before stands by
	StateCommitted   State = "committed"    // the new version stays
	StateRollingBack State = "rolling_back" // the previous binary is being put back and started
	StateRolledBack  State = "rolled_back"  // the previous version runs again
)

// event is what happens to an update.
type event string

const (
	evPlan    event = "plan"    // policy and schedule chose a version and a time
	evUnplan  event = "unplan"  // the choice is void
	evGo      event = "go"      // its time has come, or somebody asked
	evDone    event = "done"    // the state's work succeeded
	evFail    event = "fail"    // the state's work failed
	evExit    event = "exit"    // the service's process ended by itself
	evCancel  event = "cancel"  // somebody changed their mind
	evStop    event = "stop"    // the supervisor is told to end
	evRecover event = "recover" // the supervisor starts and finds this state in the journal
)

// transitions is the machine: for each state, where each event leads. An event
// that is missing from a state's row cannot happen there and is an error of
// the engine. Entering a state does its work; the engine writes the journal
// before that.
//
// Up to StateVerified nothing has been touched and every failure leads back to
// idle. From StateStopping on, whatever goes wrong (also a restart of the
// supervisor) leads to rolling back, whose work is the same from everywhere:
// the previous binary under the service's name, and started.
var transitions = map[State]map[event]State{
	StateIdle: {
		evPlan:    StateScheduled,
		evGo:      StateFetching,
		evUnplan:  StateIdle,
		evCancel:  StateIdle,
		evExit:    StateIdle,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateScheduled: {
		evPlan:    StateScheduled,
		evUnplan:  StateIdle,
		evCancel:  StateIdle,
		evGo:      StateFetching,
		evExit:    StateScheduled,
		evStop:    StateScheduled,
		evRecover: StateIdle, // planned again from what is then known
	},
	StateFetching: {
		evDone:    StateVerified,
		evFail:    StateIdle,
		evCancel:  StateIdle,
		evExit:    StateFetching,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateVerified: {
		evDone:    StateStopping,
		evFail:    StateIdle,
		evCancel:  StateIdle,
		evExit:    StateVerified,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateStopping: {
		evDone:    StateSwitching,
		evFail:    StateRollingBack,
		evExit:    StateStopping,
		evStop:    StateRollingBack,
		evRecover: StateRollingBack,
	},
	StateSwitching: {
		evDone:    StateStarting,
		evFail:    StateRollingBack,
		evStop:    StateRollingBack,
		evRecover: StateRollingBack,
	},
	StateStarting: {
		evDone:    StateProbation,
		evFail:    StateRollingBack,
		evExit:    StateRollingBack,
		evStop:    StateRollingBack,
		evRecover: StateRollingBack,
	},
	StateProbation: {
		evDone:    StateCommitted,
		evFail:    StateRollingBack,
		evExit:    StateRollingBack,
		evStop:    StateRollingBack,
		evRecover: StateRollingBack,
	},
	StateCommitted: {
		evDone:    StateIdle,
		evExit:    StateCommitted,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateRollingBack: {
		evDone:    StateRolledBack,
		evFail:    StateRolledBack, // as far as it got; the failure is an alert and a retry of the start
		evExit:    StateRollingBack,
		evStop:    StateRollingBack, // the switch back still happens, the start does not
		evRecover: StateRollingBack,
	},
	StateRolledBack: {
		evDone:    StateIdle,
		evExit:    StateRolledBack,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
}

// selfTransitions is the same machine for updates of upkeep itself. The new
// version is on probation as a child, while this one goes on with everything;
// only what has passed takes its place, in the same process, and is watched
// there by the old one for as long again. Upkeep's name stands for the new
// version when that is over, so that whatever goes wrong before leads back to the
// old one, at the latest with the next start.
var selfTransitions = map[State]map[event]State{
	StateIdle: {
		evPlan:    StateScheduled,
		evGo:      StateFetching,
		evUnplan:  StateIdle,
		evCancel:  StateIdle,
		evExit:    StateIdle,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateScheduled: {
		evPlan:    StateScheduled,
		evUnplan:  StateIdle,
		evCancel:  StateIdle,
		evGo:      StateFetching,
		evExit:    StateScheduled,
		evStop:    StateScheduled,
		evRecover: StateIdle,
	},
	StateFetching: {
		evDone:    StateVerified,
		evFail:    StateIdle,
		evCancel:  StateIdle,
		evExit:    StateFetching,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateVerified: {
		evDone:    StateProbation,
		evFail:    StateIdle,
		evCancel:  StateIdle,
		evExit:    StateVerified,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateProbation: {
		evDone:    StateStarting,
		evFail:    StateRolledBack,
		evCancel:  StateIdle,
		evExit:    StateIdle, // the service needs this version's whole attention
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateStarting: {
		evDone:    StateWatched, // said by the new version, when it has taken over
		evFail:    StateRolledBack,
		evExit:    StateIdle,
		evStop:    StateIdle,
		evRecover: StateRolledBack, // the new version took over and ended before it said so
	},
	StateWatched: {
		evDone:    StateSwitching,
		evExit:    StateWatched, // the service ends and is started again as ever
		evStop:    StateIdle,
		evRecover: StateRolledBack, // it ended, or was ended by the version that stood by
	},
	StateSwitching: {
		evDone:    StateCommitted,
		evFail:    StateCommitted, // the next start tries again
		evExit:    StateSwitching,
		evStop:    StateSwitching,
		evRecover: StateRolledBack,
	},
	StateCommitted: {
		evDone:    StateIdle,
		evExit:    StateCommitted,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
	StateRolledBack: {
		evDone:    StateIdle,
		evExit:    StateRolledBack,
		evStop:    StateIdle,
		evRecover: StateIdle,
	},
}

// next returns the state that an event leads to.
func next(s State, e event) (State, error) { return nextIn(transitions, s, e) }

func nextIn(table map[State]map[event]State, s State, e event) (State, error) {
	to, ok := table[s][e]
	if !ok {
		return s, fmt.Errorf("update in state %q cannot take the event %q", s, e)
	}
	return to, nil
}

// touched reports whether the service may no longer be as it was before the update.
func (s State) touched() bool {
	switch s {
	case StateStopping, StateSwitching, StateStarting, StateProbation, StateRollingBack:
		return true
	}
	return false
}
