//go:build !linux

package metric

import "math"

func residentBytes() float64 { return math.NaN() }

func openFiles() float64 { return math.NaN() }
