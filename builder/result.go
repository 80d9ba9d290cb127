package builder

import (
	"net/http"
	"time"

	"example.org/upkeep/builder/spec"
)

// A State is how far a build is.
type State string

const (
	StateNone       State = ""           // never asked for, or forgotten
	StateQueued     State = "queued"     // waits for its turn
	StateBuilding   State = "building"   // runs now
	StateSuccess    State = "success"    // logged
	StateFailed     State = "failed"     // can't be built; kept until a retry, or with RetryAt until then
	StateTempFailed State = "tempfailed" // failed for a reason that may pass
)

// A Result is what the service knows of one build.
type Result struct {
	Spec  spec.Spec
	State State

	// In state "queued": the place in the queue, from 1.
	Position int

	// In state "success".
	Size    int64
	Sum     string      // as in the record
	SHA256  string      // the full hash, hex
	LogID   int64       // number of the record in the log
	Removed bool        // the binary was removed to save space; asking for it builds it again
	Agreed  []Agreement `json:",omitempty"` // the verifiers that came to the same sum
	Pending []string    `json:",omitempty"` // keys of verifiers whose records are looked at now that it is logged

	// In states "failed" and "tempfailed".
	Error    string // one sentence or more, without local paths
	NotFound bool   // the fault is the request's
	Tries    int
	status   int           // of HTTP, of a refusal
	after    time.Duration // of a refusal: when it is worth asking again
	RetryAt  time.Time     // of a failure that may pass: a request after this time builds again

	// How it was built. Empty for a result known from the log only.
	Toolchain string        // h1 hash of the toolchain, "local:…" for the operator's own
	Missing   []string      // mechanisms of the sandbox that were not in force
	Started   time.Time     //
	Took      time.Duration //
	Steps     []Step        // how long each step took
	Ahead     bool          `json:",omitempty"` // nobody had asked for it
}

// A Step is one part of a build.
type Step struct {
	Name string
	Took time.Duration
	CPU  time.Duration // of its commands; 0 if it is not known
}

// An Agreement is another builder's statement that it came to the same sum.
type Agreement struct {
	Name  string // of its log
	Key   string // verifier key of its log
	Sum   string
	LogID int64 // number of the record in its log; -1: it signed the sum, and its record was not seen yet
}

// Done reports whether the result is final.
func (r Result) Done() bool { return r.State == StateSuccess || r.State == StateFailed }

// URL returns the path of the result's page: with the sum once it is known.
func (r Result) URL() string {
	u := "/" + r.Spec.String()
	if r.State == StateSuccess {
		u += r.Sum + "/"
	}
	return u
}

// An Event is one line of what happens to a build. Its JSON form is part of
// the protocol; Line has an event type of its own there.
type Event struct {
	Kind          string // QueuePosition, Success, PermFailed, TempFailed, Output
	QueuePosition *int   `json:",omitempty"` // 0: building now
	Sum           string `json:",omitempty"`
	Error         string `json:",omitempty"`
	Line          string `json:",omitempty"` // of Output
}

// A Command is a main package of a module.
type Command struct {
	Dir      string // "" for the module's root
	Name     string
	Synopsis string // first sentence of its documentation
}

// A ModuleInfo is a version of a module with its main packages.
type ModuleInfo struct {
	Module, Version string
	Commands        []Command
	GoVersion       string // the newest Go version, for links
	GOOS, GOARCH    string // guessed for the asker
}

// A Status is the state of the whole service.
type Status struct {
	VerifierKey string // of the build log
	LogSize     int64
	GoVersion   string   // current
	Previous    string   // may be ""
	Next        string   // may be ""
	Missing     []string // mechanisms of the sandbox that are not in force
	Building    []Result
	Queued      []Result
	Recent      []Result // newest first
	Alarms      []Alarm  // newest first
}

// An Alarm is something that must never happen.
type Alarm struct {
	Time time.Time
	Kind string // hash_mismatch, sum_differs, verifier_differs
	Text string
}

// Pages renders the service's pages for people; the service itself knows no HTML.
type Pages interface {
	ServeHome(w http.ResponseWriter, r *http.Request)
	// ServeResult renders the page of a build in any state, also one never asked for.
	ServeResult(w http.ResponseWriter, r *http.Request, res Result)
	// ServeModule lists a module's main packages.
	ServeModule(w http.ResponseWriter, r *http.Request, m ModuleInfo)
	// ServeError renders a message with a status.
	ServeError(w http.ResponseWriter, r *http.Request, status int, text string)
}
