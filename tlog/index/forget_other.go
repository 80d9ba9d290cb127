//go:build !linux

package index

// forget is for systems that give back memory when they are told to.
func (db *database) forget() {}
