//go:build unix && !linux && !darwin && !freebsd && !openbsd

package install

import "math"

// freeSpace isn't known here: a full disk shows when the download fails.
func freeSpace(string) (uint64, error) { return math.MaxUint64, nil }
