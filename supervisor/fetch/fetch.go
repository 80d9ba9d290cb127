// Package fetch obtains a binary from a builder and verifies it before anybody
// can execute it.
//
// Not trusted: the builder, its log, the network, the module proxy. Trusted:
// the log's verifier key from the configuration, the checksum database's key,
// and the state kept from before. A binary is accepted when the tree head is
// signed, is consistent with the one kept, includes the record; when the record
// is for exactly what was asked; when size and sum of the file are the
// record's; and when the build information inside the file says the same.
//
// Files, in the folder given in [Config]: builder/ and sumdb/ with the tree
// heads and tiles of the two logs and, after a fork, both tree heads as
// evidence (see package tlog).
package fetch

import (
	"fmt"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// A Proof is a record of the builder's log that was verified.
type Proof struct {
	Record spec.Record
	Index  int64         // number of the record in the log
	Head   tlog.TreeHead // the verified head that covers it
	SHA256 string        // the full hash in hex, if the builder names it; the binary has to have it
	Agreed []Agreement   // as the builder says
}

// A Progress says where the builder is with a build.
type Progress struct {
	State    string // "queued", "building", "built", "failed"
	Position int    // in the queue, 0 = building
	Text     string // of a failure
	At       time.Time
}

// Kinds of [VerifyError].
const (
	BadSum         = "bad_sum"         // the file's SHA-256 is not the record's
	BadSize        = "bad_size"        // the file is longer or shorter than the record says
	BuildInfo      = "build_info"      // the build information inside the file is not the record's
	LogFork        = "log_fork"        // the builder's log contradicts what it said before
	LogStale       = "log_stale"       // the builder's log went back
	BadSignature   = "bad_signature"   // the tree head is not signed by the configured key
	BadLog         = "bad_log"         // a proof that does not hold, or an answer that is not of the format
	RecordMismatch = "record_mismatch" // the record is not for what was asked
	SumDBFork      = "sumdb_fork"      // the checksum database contradicts what it said before
	SumDBMissing   = "sumdb_missing"   // the checksum database does not know the version
	SumDBSignature = "sumdb_signature" // the checksum database's tree head is not signed by its key
	SumDBBad       = "sumdb_bad"       // the checksum database's answer does not verify
)

// VerifyKinds are all kinds of [VerifyError], for metric labels.
var VerifyKinds = []string{
	BadSum, BadSize, BuildInfo, LogFork, LogStale, BadSignature, BadLog, RecordMismatch,
	SumDBFork, SumDBMissing, SumDBSignature, SumDBBad,
}

// A VerifyError is a verification that failed: somebody lies or something is
// broken, and nothing may be installed.
type VerifyError struct {
	Kind     string
	Evidence string // folder or file, "" when there is none
	Err      error
}

func (e *VerifyError) Error() string {
	s := e.Err.Error()
	if e.Evidence != "" {
		s += fmt.Sprintf(" (evidence: %s)", e.Evidence)
	}
	return s
}

func (e *VerifyError) Unwrap() error { return e.Err }

// A BuildError is a build that the builder refused or that failed there.
type BuildError struct {
	Spec      spec.Spec
	Permanent bool   // it is the request's fault: the same request will fail again
	Text      string // the builder's words, one line
	URL       string // page with the build's output
	Err       error
}

func (e *BuildError) Error() string {
	s := fmt.Sprintf("the builder did not build %s", e.Spec)
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.URL != "" {
		s += " (see " + e.URL + ")"
	}
	return s
}

func (e *BuildError) Unwrap() error { return e.Err }
