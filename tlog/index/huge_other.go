//go:build !linux

package index

func adviseHuge(at, size uintptr) {}
