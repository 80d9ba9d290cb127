package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/buildinfo"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor/cgroup"
	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/notify"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/state"
)

// Known is what discovery found out. All of it is verified.
type Known struct {
	Releases   []policy.Release
	GoReleases []policy.GoRelease
	Source     string
	Proof      string
	LogSize    int64
	StaleSince time.Time // since when no answer was fresh, zero when this one is; told beside an error too
	Silent     bool      // that is longer than it may be
	Events     []Event   // what somebody should look at; their time may be missing
}

// Versions learns of new versions.
type Versions interface {
	// Ask returns a [*VerificationError] when somebody lies. What is returned
	// beside an error is verified but may be less than everything.
	Ask(ctx context.Context, module string) (Known, error)
	// List returns all released versions of the module, verified one by one as
	// far as needed: those of one minor line.
	List(ctx context.Context, module, majorMinor string) ([]policy.Release, error)
}

// Binary is a verified record of a build.
type Binary struct {
	Spec     spec.Spec
	Size     int64
	Sum      string
	Builder  string
	LogIndex int64
	LogSize  int64
	Agreed   []string // other builders that came to the same bytes, as the builder says
	Proof    any      // for [Binaries] only
}

// Progress is a step of obtaining a binary.
type Progress struct {
	Step    string // "queued", "building", "downloading", "verifying"
	Detail  string
	Percent int
}

// Binaries obtains verified binaries.
type Binaries interface {
	// Lookup has the binary built if needed and returns its verified record.
	Lookup(ctx context.Context, s spec.Spec, progress func(Progress)) (Binary, error)
	// Download writes the verified binary under a name; nothing is under that
	// name before it is verified.
	Download(ctx context.Context, b Binary, file string, progress func(Progress)) error
}

// A VerificationError says that somebody lies or something is broken. It
// becomes a security event and a metric.
type VerificationError struct {
	Kind string
	Err  error
}

func (e *VerificationError) Error() string { return e.Err.Error() }
func (e *VerificationError) Unwrap() error { return e.Err }

// A PermanentError is one that the same request gets again, such as a version
// that doesn't compile.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// Commands runs hooks and health commands.
type Commands func(ctx context.Context, argv, env []string, timeout time.Duration) (code int, output string, err error)

// Deps are the engine's ways to the outside.
type Deps struct {
	Versions Versions
	Binaries Binaries
	Runner   process.Runner
	Checker  Checker  // nil = as configured
	Commands Commands // nil = hooks aren't run
	Output   *process.Output
	Inspect  func(file string) (Info, error) // nil = the build information
	Disk     state.Disk                      // nil = the real one
	Now      func() time.Time                // nil = time.Now
	Log      *slog.Logger
	Metrics  *metric.Registry
	Kinds    []string // of verification errors
	Self     SelfStatus
	// Successor starts other versions of upkeep; nil = upkeep doesn't update itself.
	Successor Successor
	// Inherited is what the version before handed over, nil after an ordinary start.
	Inherited *handoff.Bundle
	// Standby is the version before, when it stands by until this one has proven
	// itself.
	Standby *Standby
	// Signals are the ones that this program handles; none is lost when another
	// version takes over. nil = none are handled.
	Signals *handoff.Signals
	// Handovers are parts that live on in the next version of upkeep.
	Handovers []Handover
	// Received are the sockets that systemd passed or kept; StoreFile has it keep
	// one beyond a crash of upkeep, ForgetFile gives it up; nil = nobody does.
	Received   []notify.Named
	StoreFile  func(name string, f *os.File)
	ForgetFile func(name string)
	// Notify makes the service's notify socket, Groups its control groups, Store
	// keeps descriptors for it; nil = there are none.
	Notify func(notify.Options) (*notify.Session, error)
	Groups *cgroup.Group
	Store  *notify.Store
	// UpdatesErr says what is wrong with the configuration of updates: the
	// service runs, updates are paused.
	UpdatesErr error
	// Rest is called when nothing is to be done for a while; nil = nothing.
	Rest func()
	// Reload reads the configuration again, and gets ready for what else is in
	// it. That is in force only after settle(true), which may still fail.
	Reload func() (cfg Config, settle func(accepted bool) error, err error)
	// CheckConfig returns what is wrong with the configuration on disk, with
	// which a new version of upkeep would start; nil = nothing is.
	CheckConfig func() error
}

// Info is what a binary says of itself.
type Info struct {
	Spec spec.Spec
}

// Pair returns its versions.
func (i Info) Pair() Pair { return Pair{i.Spec.Version, i.Spec.GoVersion} }

// Inspect reads the build information of a Go binary.
func Inspect(file string) (Info, error) {
	bi, err := buildinfo.ReadFile(file)
	if err != nil {
		return Info{}, fmt.Errorf("%s holds no Go build information, so its version can't be known: %w", file, err)
	}
	// "go1.26.8 X:experiment": what stands behind the version isn't part of it.
	goVersion, _, _ := strings.Cut(bi.GoVersion, " ")
	s := spec.Spec{Module: bi.Main.Path, Version: bi.Main.Version, GoVersion: goVersion}
	s.Dir = strings.TrimPrefix(strings.TrimPrefix(bi.Path, bi.Main.Path), "/")
	for _, kv := range bi.Settings {
		switch kv.Key {
		case "GOOS":
			s.GOOS = kv.Value
		case "GOARCH":
			s.GOARCH = kv.Value
		}
	}
	return Info{s}, nil
}
