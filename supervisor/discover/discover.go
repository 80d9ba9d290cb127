// Package discover asks the DNS for the latest versions of a module and
// believes nothing that it has not validated itself.
//
// Not trusted: the network, every resolver, every name server, the clock of the
// other side. Trusted: a pinned key (DS or DNSKEY) of the zone, or the root
// zone's keys and the chain of signatures below them, and this machine's clock
// within a few minutes. With trust = "resolver" the AD bit of a resolver on
// the loopback interface is trusted instead; no other resolver's ever is.
//
// What a zone signs can still be old: the size of the log behind the answers
// (status.v0) is remembered for each source, and a source that goes back or
// whose log was last read too long ago is stale: nothing from it is believed.
//
// Files, in the folder given in [Options]: discovery.json with the highest log
// size seen for each source, and evidence/ with answers that contradict each
// other, as received. In the folder that [Config] names as cache: messages as
// received, by whoever shares it; they are validated like those of the network.
package discover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/upkeep/dnsserver/name"
)

// An Answer is what is known of a module after asking every source. It is
// filled in as far as possible when an error is returned beside it.
type Answer struct {
	Module    string           // asked for
	Versions  []name.Entry     // newest of each major version, newest first; only what enough fresh sources agree on
	Toolchain []name.Entry     // likewise; empty when the zone lists none
	Status    *name.StatusText // of the freshest source; nil when the zone has no status.v0
	Proof     string           // how it was validated, a phrase for people
	Source    string           // the sources that it comes from
	Asked     time.Time        // when the question was sent
	TTL       time.Duration    // for how long the answer may be kept

	Fallback bool           // it comes from the module proxy, not from the DNS
	Sources  []SourceAnswer // each source by itself
	Events   []Event        // what somebody should look at
	Fresh    Freshness
}

// A SourceAnswer is what one source said.
type SourceAnswer struct {
	Source    string // as configured
	Zone      string
	Server    string // address that answered
	Transport string // "udp", "tcp", "tls", "https"
	Versions  []name.Entry
	Toolchain []name.Entry
	Status    *name.StatusText
	Chain     []Link // from the trust anchor down to the zone; nil with trust = "resolver"
	Proof     string
	TTL       time.Duration
	RTT       time.Duration
	Exchanges int    // messages sent for this answer
	Stale     string // why nothing from it is believed, "" when it is fresh
	Behind    bool   // another source has a larger log
	Err       error  // why it has no answer

	uncached bool      // all parts come straight from the zone's server
	signed   time.Time // when the module's record was signed; zero if unknown
}

// A Link is one step of a chain of keys.
type Link struct {
	Zone      string
	KeyTag    uint16
	Algorithm uint8
	By        string // "anchor file …", "built-in root anchor", "DS in test."
	Expires   time.Time
}

// An Event is something that somebody should look at. The kinds are fixed, so
// that they serve as metric labels; see [EventKinds].
type Event struct {
	Kind   string
	Source string
	Text   string
	At     time.Time
	Files  []string // evidence
}

// Kinds of [Event].
const (
	EventBogus       = "bogus"       // a source's answer failed validation
	EventInsecure    = "insecure"    // a source's answer cannot be validated: unsigned delegation
	EventUnreachable = "unreachable" // a source did not answer
	EventStale       = "stale"       // a source's log went back or is too old
	EventBehind      = "behind"      // a source's log is smaller than another's
	EventConflict    = "conflict"    // two signed, different answers at one log size
	EventDisagree    = "disagree"    // too few sources agree
	EventVanished    = "vanished"    // a version that was listed before is not any more
	EventLower       = "lower"       // the newest version of a major went down
	EventFallback    = "fallback"    // the answer comes from the module proxy
	EventSilence     = "max_silence" // no fresh verified answer for longer than max_silence
	EventMalformed   = "malformed"   // a validated answer that does not follow the format
	EventNotFound    = "not_found"   // a module that was known is denied
)

// EventKinds are all kinds of [Event].
var EventKinds = []string{
	EventBogus, EventInsecure, EventUnreachable, EventStale, EventBehind, EventConflict, EventDisagree,
	EventVanished, EventLower, EventFallback, EventSilence, EventMalformed, EventNotFound,
}

// Freshness says how current the knowledge of a module is.
type Freshness struct {
	Last       time.Time // of the last fresh verified answer; zero if there was none
	StaleSince time.Time // zero when fresh
	Silent     bool      // for longer than max_silence
}

// ErrNotFound is a validated denial: the zone's keys sign that it does not
// know the module.
var ErrNotFound = errors.New("not found")

// A NotFoundError says what was asked and where. It is an [ErrNotFound].
type NotFoundError struct {
	Module string
	Name   string // asked for
	Source string
	Proof  string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("module %s not found: asked %s for %s (%s)", e.Module, e.Source, e.Name, e.Proof)
}

func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// ErrUnreachable is wrapped when a source gave no usable answer at all: no
// packet, a refusal, a server failure.
var ErrUnreachable = errors.New("no answer")

// ErrMalformed is wrapped when an answer was validated, and is not of the format.
var ErrMalformed = errors.New("not of the format")

// ErrStale is wrapped when every source's log went back or is too old.
var ErrStale = errors.New("stale")

// ErrDisagree is wrapped when fewer sources than configured agree.
var ErrDisagree = errors.New("sources do not agree")

// Kinds of [BogusError].
const (
	WrongKey         = "wrong_key"         // the zone's keys are not those of the anchor or the DS
	Expired          = "expired"           // a signature is too old
	NotYetValid      = "not_yet_valid"     // a signature is of the future
	MissingSignature = "missing_signature" // something that must be signed is not
	BadSignature     = "bad_signature"     // a signature does not verify
	BadDenial        = "bad_denial"        // an absence that is not proved
	BadWildcard      = "bad_wildcard"      // a wildcard where no wildcard may stand
	BadMessage       = "bad_message"       // not an answer to the question
	WrongSigner      = "wrong_signer"      // signed by another zone
	Algorithm        = "algorithm"         // only algorithms that are not accepted
	NotAuthenticated = "not_authenticated" // trust = "resolver": the AD bit is missing
	TooMuchWork      = "too_much_work"     // made to cost time
)

// A BogusError is an answer that must not be believed.
type BogusError struct {
	Kind   string
	Name   string // of the record set
	Type   string // of the record set
	Reason string // one sentence
}

func (e *BogusError) Error() string { return e.Reason }

// An InsecureError is an answer that nobody signs: the delegation to the zone
// is proved to be unsigned, or is signed only in ways that are not accepted.
type InsecureError struct {
	Zone   string // the highest unsigned zone
	Reason string
}

func (e *InsecureError) Error() string { return e.Reason }

// A Fallback finds versions without the DNS, and verifies them itself.
type Fallback interface {
	// Versions returns the newest release of each major version, newest first.
	Versions(ctx context.Context, module string) ([]name.Entry, error)
	// Describe says where they come from and how they are verified.
	Describe() string
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

func bogusKind(err error) string {
	var b *BogusError
	if errors.As(err, &b) {
		return b.Kind
	}
	return ""
}
