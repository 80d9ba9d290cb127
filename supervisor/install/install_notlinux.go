//go:build !linux

package install

func copyAttributes(file, old string) error { return nil }

// Capabilities reports whether a file has capabilities, which only Linux knows.
func Capabilities(string) bool { return false }
