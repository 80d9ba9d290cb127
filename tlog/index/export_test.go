package index

// OpenUnverified is Open without the check in the background.
func OpenUnverified(file string, opts Options) (*Store, error) {
	opts.unverified = true
	return Open(file, opts)
}
