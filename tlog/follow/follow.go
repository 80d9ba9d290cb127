// Package follow keeps an index of a whole checksum database up to date by
// reading every record of its log.
package follow

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// Config says what to follow.
type Config struct {
	Log      *tlog.Client
	Store    *index.Store
	Interval time.Duration // between two polls for a new tree head; jitter is added
	Tiles    string        // folder that keeps the tiles read, "" for none
	Once     bool          // return when the index has reached the log's tree head
	Parallel int           // tiles fetched at the same time, 0 for the default

	Progress func(Progress) // called at least once a second while catching up
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
}

// Progress is how far a long catching-up is.
type Progress struct {
	Done, Target int64         // records
	Rate         float64       // records a second, lately
	Left         time.Duration // at that rate, 0 if unknown
}

// Run follows the log until ctx ends (or, with Once, until it has caught up).
// Errors that can pass are logged, counted and tried again.
func Run(ctx context.Context, cfg Config) error {
	return errors.New("follow: under construction")
}
