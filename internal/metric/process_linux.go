package metric

import (
	"bytes"
	"math"
	"os"
	"strconv"
)

func residentBytes() float64 {
	b, err := os.ReadFile("/proc/self/statm") // pages: size, resident, …
	if f := bytes.Fields(b); err == nil && len(f) > 1 {
		if n, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
			return float64(n) * float64(os.Getpagesize())
		}
	}
	return math.NaN()
}

func openFiles() float64 {
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return math.NaN()
	}
	return float64(len(l) - 1) // less the one that read the folder
}
