//go:build !linux

package main

import "runtime/debug"

// rest gives back the memory that work needed and waiting doesn't.
func rest() { debug.FreeOSMemory() }
