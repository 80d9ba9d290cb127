package tlog

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that the log has no record for the key.
	ErrNotFound = errors.New("not found in the log")

	// ErrSignature says that a tree head has no valid signature by the configured key.
	ErrSignature = errors.New("tree head is not signed by the configured key")

	// ErrStale says that the server offers an older tree head of the same history.
	ErrStale = errors.New("tree head is older than the one accepted before")

	// ErrShrunk says that the log offers fewer records than before, and that
	// nothing shows that they are the same.
	ErrShrunk = errors.New("has fewer records than before, not proven to be the same ones")

	// ErrNoDataTiles says that the server serves hash tiles and refuses data tiles.
	ErrNoDataTiles = errors.New("server refuses data tiles")

	// ErrInconsistent says that tiles do not add up to the signed tree head.
	// Either they were damaged on the way or the server lies; it proves nothing
	// against the log, since tiles carry no signature.
	ErrInconsistent = errors.New("tiles don't match the signed tree head")

	// ErrKeyExists says that the log already has another record for the key.
	ErrKeyExists = errors.New("the log has another record for the key")
)

// A ForkError says that the log's key signed two tree heads of which none
// extends the other: the log shows different histories to different people,
// or took records back.
type ForkError struct {
	Log       string
	Kept, Got TreeHead
	Evidence  string // file that holds both signed notes, "" if it could not be written
}

func (e *ForkError) Error() string {
	s := fmt.Sprintf("log %s is forked: it signed a tree of %d records that is not consistent with its tree of %d records accepted before", e.Log, e.Got.Size, e.Kept.Size)
	if e.Evidence != "" {
		s += "; both signed tree heads are kept in " + e.Evidence
	}
	return s + "; the tree head accepted before stays in use"
}
