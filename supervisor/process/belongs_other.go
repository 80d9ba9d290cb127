//go:build !linux

package process

// Belongs needs Linux; elsewhere only the main process itself is known.
func Belongs(pid, main int) bool { return pid == main }
