// Package watch keeps an index of a few chosen modules up to date by asking
// the module proxy for their versions and the checksum database for proof.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// Config says what to watch.
type Config struct {
	Modules   []string      // module paths, or package paths within them
	Toolchain bool          // also watch golang.org/toolchain
	Interval  time.Duration // between two polls of the same module; jitter is added

	Proxy   *goproxy.Client
	Log     *tlog.Client // checksum database
	Store   *index.Store
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// Run polls until ctx ends. It returns an error only for a wrong
// configuration; what goes wrong later is logged, counted and tried again.
func Run(ctx context.Context, cfg Config) error {
	return errors.New("watch: under construction")
}
