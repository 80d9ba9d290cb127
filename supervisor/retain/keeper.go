package retain

import (
	"log/slog"
	"os"
	"time"
)

// Options are what a keeper is told.
type Options struct {
	Log *slog.Logger
	// Claim is how long a new process may take to bind what the one before had.
	Claim time.Duration
	// Store keeps a descriptor beyond a crash of upkeep, under a name, and
	// Forget gives it up; nil = nobody does.
	Store  func(name string, f *os.File)
	Forget func(name string)
	// Lost is called with a reason when a socket of the service isn't kept, or
	// is given up unclaimed.
	Lost func(reason string)
}

// Reasons for [Options].Lost.
const (
	LostError     = "error"     // a bind call couldn't be looked into
	LostTooMany   = "too_many"  // more sockets than are kept
	LostUnclaimed = "unclaimed" // the new process didn't bind it
	LostChanged   = "changed"   // the new process bound something else on the port
	LostEarly     = "early"     // the service ended twice right after its start
)

// Reasons are all of them.
var Reasons = []string{LostError, LostTooMany, LostUnclaimed, LostChanged, LostEarly}

// StoreName begins the names in systemd's descriptor store.
const StoreName = "upkeep-retain-"

// A Socket is one that is kept.
type Socket struct {
	Name    string `json:"name,omitempty"` // of one that the supervisor bound
	Network string `json:"network"`
	Address string `json:"address"`
	Claimed bool   `json:"claimed"` // the running process has it
}

// Status is what a keeper does.
type Status struct {
	Off      string   // why the running process's sockets aren't kept; "" = they are
	Sockets  []Socket // sorted
	Warnings []string // limits that were met
}

// A ListenSpec is a socket that the supervisor opens for the service.
type ListenSpec struct {
	Name    string
	Network string // tcp, tcp4, tcp6, udp, udp4, udp6, unix or unixgram
	Address string // host:port or a file name
	Mode    os.FileMode
	UID     int // owner of a unix socket, -1 = upkeep's
	GID     int
}
