package index

// OpenUnverified is Open without the check in the background.
func OpenUnverified(file string, opts Options) (*Store, error) {
	opts.unverified = true
	return Open(file, opts)
}

// CompactAt returns options by which a file is written anew when so many bytes
// of it, and half of it, are free.
func (o Options) CompactAt(free int64) Options {
	o.compactFree = free
	return o
}
