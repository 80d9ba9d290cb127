//go:build unix

package logtest

import (
	"crypto/sha256"
	"syscall"
	"time"
)

// CPUTime returns the CPU time that this process has used.
func CPUTime() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// HashTime returns the CPU time of hashing the records of a log, leaves and
// nodes, and nothing else. It measures some and multiplies.
func HashTime(c *Content, size int64) time.Duration {
	n := min(500_000, size)
	var lengths []int
	var buf []byte
	for i := range n {
		buf = c.Append(buf[:0], i*(size/n))
		lengths = append(lengths, 1+len(buf))
	}
	leaf, node := make([]byte, 4096), make([]byte, 65)
	start := CPUTime()
	for _, k := range lengths {
		h := sha256.Sum256(leaf[:k])
		copy(node[1:], h[:])
		h = sha256.Sum256(node)
		copy(node[33:], h[:])
	}
	return time.Duration(float64(CPUTime()-start) * float64(size) / float64(n))
}
