package tlog

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// ClientConfig says which log a [Client] reads.
type ClientConfig struct {
	Key string // verifier key
	URL string // base address, for example https://log.example.org/tlog or <module proxy>/sumdb/<name>
	Dir string // state folder, created if needed; several processes may share it

	HTTP    *http.Client          // nil: a client of its own
	Logger  *slog.Logger          // nil: slog.Default()
	Metrics prometheus.Registerer // nil: none
}

// A Client keeps the newest accepted tree head of a log and looks up records.
type Client struct{ cfg ClientConfig }

// NewClient returns a client and reads the tree head kept from before.
func NewClient(cfg ClientConfig) (*Client, error) {
	return nil, errors.New("tlog: under construction")
}

// Name returns the name of the log, as in its key.
func (c *Client) Name() string { return "" }

// Head returns the newest accepted tree head; ok is false before the first one.
func (c *Client) Head() (head TreeHead, ok bool) { return TreeHead{}, false }

// Update fetches the log's tree head and accepts it when it extends the kept
// one. Its errors: [ErrSignature], [*ForkError], [ErrStale], [ErrInconsistent]
// and those of the network.
func (c *Client) Update(ctx context.Context) (TreeHead, error) {
	return TreeHead{}, errors.New("tlog: under construction")
}

// Lookup returns the verified record for a key: what stands after /lookup/ in
// the protocol, escaped by the caller. For a log that makes records on demand
// it may take as long as ctx allows. Without a record it returns [ErrNotFound].
func (c *Client) Lookup(ctx context.Context, key string) (Record, error) {
	return Record{}, errors.New("tlog: under construction")
}
