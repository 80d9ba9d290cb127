package supervisor

import (
	"context"
	"time"
)

// APIVersion is the version of the JSON forms in this file. The control
// socket and the web pages' API are the same one.
const APIVersion = 1

// Status is everything there is to know about a supervised service at one moment.
type Status struct {
	API     int       `json:"api"`
	Now     time.Time `json:"now"`
	Code    Code      `json:"code"`
	Summary string    `json:"summary"` // one sentence: "Up to date.", "Update to v1.0.1 tonight at 02:13."

	Service   ServiceStatus `json:"service"`
	Self      SelfStatus    `json:"self"`
	Knowledge Knowledge     `json:"knowledge"`
	Plan      Plan          `json:"plan"`

	Update     *UpdateProgress `json:"update,omitempty"`      // the update under way
	LastResult *Result         `json:"last_result,omitempty"` // how the last update ended

	Paused       bool   `json:"paused"` // no update starts by itself
	PausedReason string `json:"paused_reason,omitempty"`
	PausedBy     string `json:"paused_by,omitempty"`
	Hold         bool   `json:"hold"` // stay with the running version
	HoldBy       string `json:"hold_by,omitempty"`
	Pin          *Pair  `json:"pin,omitempty"`
	Skips        []Skip `json:"skips,omitempty"`

	Scheduled *Scheduled `json:"scheduled,omitempty"` // an update that somebody asked for, for a time to come

	Kept    []Kept   `json:"kept,omitempty"`   // binaries to which a roll-back needs no download
	Events  []Event  `json:"events,omitempty"` // newest first
	History []Result `json:"history,omitempty"`
}

// Code sums a status up for programs; see [Status.ExitCode].
type Code string

// The codes, from good to bad.
const (
	CodeCurrent  Code = "current"  // nothing to do
	CodePending  Code = "pending"  // a newer version waits for its time or for somebody's decision
	CodeUpdating Code = "updating" // an update is under way
	CodePaused   Code = "paused"   // a newer version would be installed if updates weren't paused
	CodeFailing  Code = "failing"  // the service is down, or updates can't be found, verified or installed
)

// ExitCode is what `upkeep status` ends with: 0 current, 1 pending, 2 failing.
func (s *Status) ExitCode() int {
	switch s.Code {
	case CodeCurrent:
		return 0
	case CodeFailing:
		return 2
	}
	return 1
}

// Pair is a version of the service's module and the Go version that built it.
type Pair struct {
	Version   string `json:"version"`
	GoVersion string `json:"go_version"`
}

func (p Pair) String() string { return p.Version + " (" + p.GoVersion + ")" }

// ServiceStatus is the supervised service. Module to GOARCH come from the
// build information inside the binary.
type ServiceStatus struct {
	Name      string    `json:"name"` // of the command
	Module    string    `json:"module"`
	Package   string    `json:"package"` // below the module: "" or "cmd/x"
	Version   string    `json:"version"`
	GoVersion string    `json:"go_version"`
	GOOS      string    `json:"goos"`
	GOARCH    string    `json:"goarch"`
	Sum       string    `json:"sum"`  // of the running binary, in the form of the build log
	Path      string    `json:"path"` // what is started, usually a symlink
	Binary    string    `json:"binary"`
	Running   bool      `json:"running"`
	Pid       int       `json:"pid,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Since     time.Time `json:"since,omitzero"` // when this version was installed
	Restarts  int       `json:"restarts"`       // after crashes outside an update, since the supervisor started
	Health    Health    `json:"health"`
	// Handover is how the next version takes the connections over.
	Handover HandoverStatus `json:"handover"`
	Says     string         `json:"says,omitempty"` // its own status line (STATUS= of sd_notify)
	Warning  string         `json:"warning,omitempty"`
}

// Health is the last answer of the service's health check.
type Health struct {
	Configured bool      `json:"configured"`
	OK         bool      `json:"ok"`
	Detail     string    `json:"detail,omitempty"`
	Checked    time.Time `json:"checked,omitzero"`
}

// SelfStatus is the supervisor.
type SelfStatus struct {
	Module    string    `json:"module"`
	Package   string    `json:"package,omitempty"` // below the module
	Version   string    `json:"version"`
	GoVersion string    `json:"go_version"`
	Pid       int       `json:"pid"`
	Started   time.Time `json:"started"`                // the process; it stays the same over updates of upkeep
	Since     time.Time `json:"since,omitzero"`         // when this version of upkeep took over
	Path      string    `json:"path,omitempty"`         // what is updated, usually a symlink
	Binary    string    `json:"binary,omitempty"`       // the file that runs
	Config    string    `json:"config,omitempty"`       // file name
	ConfigErr string    `json:"config_error,omitempty"` // why the file on disk is not in force
	StateErr  string    `json:"state_error,omitempty"`  // what is wrong with the state folder

	Off        string          `json:"off,omitempty"` // why upkeep doesn't update itself at all; then the rest is empty
	Plan       *Plan           `json:"plan,omitempty"`
	Error      string          `json:"error,omitempty"`  // why the versions of upkeep could not be learned the last time
	Update     *UpdateProgress `json:"update,omitempty"` // the update of upkeep under way
	LastResult *Result         `json:"last_result,omitempty"`
	Skips      []Skip          `json:"skips,omitempty"`
	Kept       []Kept          `json:"kept,omitempty"`
}

// Knowledge is how the versions became known and how fresh that is.
type Knowledge struct {
	Source      string    `json:"source,omitempty"` // who was asked
	Proof       string    `json:"proof,omitempty"`  // how the answer was validated
	Asked       time.Time `json:"asked,omitzero"`   // last try
	Fresh       time.Time `json:"fresh,omitzero"`   // last answer that was validated
	NextAsk     time.Time `json:"next_ask,omitzero"`
	Error       string    `json:"error,omitempty"` // of the last try
	LogSize     int64     `json:"log_size,omitempty"`
	Unavailable bool      `json:"unavailable"`          // the last try failed
	StaleSince  time.Time `json:"stale_since,omitzero"` // since when no answer was fresh
	Silent      bool      `json:"silent,omitempty"`     // that is longer than discovery.max_silence: answers may be dropped on the way
}

// Plan is what is going to happen, and why nothing else.
type Plan struct {
	Candidate *Candidate       `json:"candidate,omitempty"`
	Versions  []VersionVerdict `json:"versions"`         // every known version, newest first
	Reason    string           `json:"reason,omitempty"` // why there is no candidate
	Automatic bool             `json:"automatic"`        // the candidate is installed without anybody asking
}

// Candidate is the version to install next.
type Candidate struct {
	Pair
	Kind   string    `json:"kind"`           // patch, minor, major or toolchain
	When   time.Time `json:"when,omitzero"`  // earliest time, zero if nobody scheduled it
	Why    string    `json:"why"`            // why this one
	Wait   string    `json:"wait,omitempty"` // why not sooner
	Path   string    `json:"path,omitempty"` // module path, if it is another one (/v2)
	Manual bool      `json:"manual"`         // only when somebody asks
}

// VersionVerdict says of one known version what the policy makes of it.
type VersionVerdict struct {
	Pair
	Path       string    `json:"path,omitempty"`       // module path, if it is another one (/v2)
	Kind       string    `json:"kind"`                 // running, patch, minor, major, toolchain, older, prerelease
	Discovered time.Time `json:"discovered,omitzero"`  // zero when unknown
	Chosen     bool      `json:"chosen"`               // it is the candidate
	Running    bool      `json:"running"`              //
	Installed  bool      `json:"installed"`            // a binary is at hand
	Skipped    bool      `json:"skipped"`              //
	Pinned     bool      `json:"pinned"`               //
	Retracted  string    `json:"retracted,omitempty"`  // the author's reason
	Deprecated string    `json:"deprecated,omitempty"` // of the module
	Reason     string    `json:"reason"`               // why it is or is not going to be installed
}

// Skip is a version that is not installed by itself.
type Skip struct {
	Pair           // an empty GoVersion means with any
	Sum  string    `json:"sum,omitempty"`
	Why  string    `json:"why"`
	By   string    `json:"by"`
	Time time.Time `json:"time"`
}

// Scheduled is an update that a person asked for, at a time. It waits for
// nothing but that time: no delay, no window.
type Scheduled struct {
	Pair
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// Kept is a binary of an earlier version.
type Kept struct {
	Pair
	Sum     string    `json:"sum"`
	File    string    `json:"file"`
	Size    int64     `json:"size"`
	Since   time.Time `json:"since,omitzero"`
	Running bool      `json:"running"`
}

// UpdateProgress is an update under way.
type UpdateProgress struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"` // update, rollback, self_update or self_rollback
	From     Pair      `json:"from"`
	To       Pair      `json:"to"`
	By       string    `json:"by"`
	State    State     `json:"state"`
	Step     string    `json:"step"`              // in words: "building", "downloading"
	Detail   string    `json:"detail,omitempty"`  // "queue position 2", "63 % of 6.1 MB"
	Percent  int       `json:"percent,omitempty"` // of the step, 0 if unknown
	Started  time.Time `json:"started"`           // the update
	StepFrom time.Time `json:"step_from"`         // the step
	Deadline time.Time `json:"deadline,omitzero"` // when probation ends
	Steps    []Step    `json:"steps"`             // all, with those to come
	Log      []string  `json:"log"`
}

// Step is one line of an update's progress display.
type Step struct {
	State State         `json:"state"`
	Name  string        `json:"name"`
	Done  bool          `json:"done"`
	Now   bool          `json:"now"`
	Took  time.Duration `json:"took,omitempty"` // nanoseconds
}

// Result is how an update ended. It is also the record of the history file.
type Result struct {
	ID       string        `json:"id"`
	Kind     string        `json:"kind"`   // update, rollback, self_update or self_rollback (of upkeep), or an action such as skip
	Result   string        `json:"result"` // see the Result constants
	Reason   string        `json:"reason,omitempty"`
	From     Pair          `json:"from"`
	To       Pair          `json:"to"`
	Sum      string        `json:"sum,omitempty"`
	Builder  string        `json:"builder,omitempty"`
	LogIndex int64         `json:"log_index,omitempty"`
	LogSize  int64         `json:"log_size,omitempty"`
	Agreed   []string      `json:"agreed,omitempty"` // other builders that came to the same bytes, as the builder says: names of their logs with record numbers
	By       string        `json:"by"`
	Started  time.Time     `json:"started"`
	Ended    time.Time     `json:"ended"`
	Downtime time.Duration `json:"downtime,omitempty"` // nanoseconds between the old process's end and the new one's start
}

// How an update ends.
const (
	ResultInstalled  = "installed"   // the new version runs
	ResultRolledBack = "rolled_back" // the new version failed, the old one runs
	ResultRefused    = "refused"     // verification failed, nothing was touched
	ResultFailed     = "failed"      // could not be fetched or installed, nothing was touched
	ResultCancelled  = "cancelled"   // the supervisor was stopped, or somebody changed their mind
	ResultPostponed  = "postponed"   // the before-update hook said not now
)

// Event is something that a person should know.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"` // for security events one of the verification kinds, else for example rolled_back
	Security bool      `json:"security"`
	Text     string    `json:"text"`
	Version  string    `json:"version,omitempty"`
	Count    int       `json:"count"` // how often it happened; Time is the last time
	First    time.Time `json:"first"`
}

// Action is something that a person asks for.
type Action struct {
	Verb      string `json:"verb"`
	Version   string `json:"version,omitempty"`    // "" for the candidate, or for the previous version with rollback
	GoVersion string `json:"go_version,omitempty"` // "" for the best one
	By        string `json:"by,omitempty"`         // who, for the history
	Reason    string `json:"reason,omitempty"`
	// Self means upkeep itself instead of the service: with update, rollback,
	// cancel, skip and unskip.
	Self bool `json:"self,omitempty"`
	// At is the time of an update to come, with schedule.
	At time.Time `json:"at,omitzero"`
}

// The verbs of actions. All of them return at once; progress is in the [Status].
const (
	VerbUpdate   = "update"   // install now
	VerbCheck    = "check"    // ask for new versions now
	VerbCancel   = "cancel"   // give up an update that has not yet stopped the old version
	VerbHold     = "hold"     // stay with what runs
	VerbUnhold   = "unhold"   //
	VerbSkip     = "skip"     // never install this version by itself
	VerbUnskip   = "unskip"   //
	VerbPin      = "pin"      // this version and Go version, nothing else
	VerbUnpin    = "unpin"    //
	VerbPause    = "pause"    // no update by itself
	VerbResume   = "resume"   //
	VerbRollback = "rollback" // back to a kept binary
	VerbReload   = "reload"   // read the configuration again
	VerbSchedule = "schedule" // install a version at a time; cancel takes it back
)

// Controller is what the control socket and the web pages see of the engine.
type Controller interface {
	Status(ctx context.Context) (Status, error)
	// Do returns a [*RefusedError] when the action makes no sense now.
	Do(ctx context.Context, a Action) error
	// Watch sends after changes of the status, coalescing them, until ctx ends.
	// The channel is closed when upkeep ends or hands over to another version of
	// itself: whoever streams ends then, and the viewer connects anew.
	Watch(ctx context.Context) <-chan struct{}
	// Logs returns at most n of the service's last lines of output, oldest first.
	Logs(n int) []string
}

// A RefusedError says why an action is not done.
type RefusedError struct{ Msg string }

func (e *RefusedError) Error() string { return e.Msg }
