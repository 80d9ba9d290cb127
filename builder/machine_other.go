//go:build !linux

package builder

import "math"

func machineMemory() int64 { return 4 << 30 }

func diskFree(string) (int64, error) { return math.MaxInt64, nil }
