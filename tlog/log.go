package tlog

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// GenerateKey returns a new key pair for a log.
func GenerateKey(name string) (signerKey, verifierKey string, err error) {
	return "", "", errors.New("tlog: under construction")
}

// LogOptions are the optional settings of a [Log].
type LogOptions struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// An Entry is a record to append and the key under which it is looked up.
type Entry struct {
	Key  string // "" for none
	Text []byte // ends in a newline, has no empty line
}

// A Log is an append-only log on disk.
type Log struct{}

// OpenLog opens the log in dir, creating an empty one if there is none, and
// checks what is stored against the signed tree head.
func OpenLog(dir, signerKey string, opts LogOptions) (*Log, error) {
	return nil, errors.New("tlog: under construction")
}

// Append adds entries and returns the record number of the first when all are
// durable and under a signed tree head. Entries whose key has the same text
// already are not added again. A key with another text is [ErrKeyExists], and
// nothing is added.
func (l *Log) Append(ctx context.Context, entries ...Entry) (firstID int64, err error) {
	return 0, errors.New("tlog: under construction")
}

// Find returns the record number for a key.
func (l *Log) Find(key string) (id int64, ok bool) { return 0, false }

// Head returns the current signed tree head.
func (l *Log) Head() TreeHead { return TreeHead{} }

// Record returns the text of a record.
func (l *Log) Record(id int64) (text []byte, err error) { return nil, nil }

// VerifierKey returns the key that clients configure.
func (l *Log) VerifierKey() string { return "" }

// Close ends the log; what was appended is durable already.
func (l *Log) Close() error { return nil }

// Handler serves the log's protocol: /latest, /lookup/KEY, /tile/..., and
// /supported. For an unknown key it calls miss (unless nil), which may block
// and Append; when miss returns nil the key is looked up again. An error of
// miss with a method HTTPStatus() int chooses the status, else it is 500.
func (l *Log) Handler(miss func(ctx context.Context, key string) error) http.Handler { return nil }
