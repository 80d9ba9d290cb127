// Package index keeps, for every module in a checksum database, the versions
// that matter for an update, in one file that answers in microseconds.
//
// It trusts the records it is given: package tlog proves them. A record that
// is not two well-formed lines of one module is skipped and counted.
//
// Files, for an index in FILE:
//
//	FILE          a bbolt database
//	FILE.new      its content being written anew, to take FILE's place (see compact.go)
//	FILE.lock     taken by the one process that writes
//	FILE.readers  taken, shared, by processes that only read (see readers.go)
//
// The content of FILE is not trusted either: a crash or a broken disk may have
// changed it. Pages are checked before bbolt follows them (pages.go), blocks
// when they are read (block.go), all of it once in the background (verify.go),
// and what does not fit is an error, never another answer.
//
// Modules lie in blocks, sorted and with shared beginnings cut, so that
// 3 million modules take a few hundred megabytes. What is known of a module is
// a set from which additions only ever remove what is older, so the order in
// which changes are merged does not matter, and merging twice changes nothing.
// While a long log is read, changes collect in memory; every few seconds they go
// to a journal in the file, together with the position in the log, and now and
// then they are merged into the blocks, while the next ones collect (behind.go).
// Readers see the state of the last merge and never wait.
//
// Figures for 72 million records of 3.1 million modules (docs/log.md says how
// they were measured; limit in brackets): CPU time of following 2.9 times that of
// hashing alone, 2.0 times without SHA instructions (2), store 246 MB (1.5 GB),
// peak memory of following 851 MiB (1 GiB), of serving 255 MiB (512 MiB), point
// query 2.0 µs at the median with no allocation but the answer's two (5 µs),
// opening and the first query 8 ms (1 s).
package index

import "time"

// A Version is a version of a module.
type Version struct {
	Version string
	Time    int64 // Unix time at which it was there at the latest, 0 if unknown; see clock
	Record  int64 // record number in the log
}

// A Module is what the index holds of one module path.
type Module struct {
	Path   string
	Majors []Version // newest release of each major version under the path, newest first
	Minors []Version // newest release of each of the newest 4 minor lines, newest first
	Pre    *Version  // newest pre-release, if newer than the newest release
	Pseudo *Version  // newest pseudo-version, if nothing is tagged
}

// A Toolchain is a release of Go.
type Toolchain struct {
	Version string // like go1.27.4
	Kind    string // cur, prev or next
	Time    int64  // Unix time
	Record  int64
}

// A Head is the state of the log that the index knows.
type Head struct {
	Size     int64
	Hash     [32]byte
	Accepted time.Time // when the log was last found to have no more than this, to a few seconds; while it is caught up with, by the log's own time
}

// A Reader answers questions; it never waits for a writer.
type Reader interface {
	// Module returns what is known of a module path.
	Module(path string) (Module, bool, error)

	// Later returns the paths of later major versions (/vN, or .vN on
	// gopkg.in) of the same module, lowest first.
	Later(path string) ([]string, error)

	// IsPrefix reports whether some known module path starts with path and a slash.
	IsPrefix(path string) (bool, error)

	// HostSuffix reports whether some known module's host is labels or ends
	// in a dot and labels.
	HostSuffix(labels string) (bool, error)

	// Toolchains returns the Go releases to offer: cur, prev, next.
	Toolchains() ([]Toolchain, error)

	// Head returns the state of the log that the answers are based on.
	Head() (Head, error)

	// Changed returns a channel that is closed at the next change of any
	// answer. Take it before reading, then wait on it.
	Changed() <-chan struct{}
}

var _ Reader = (*Store)(nil)
