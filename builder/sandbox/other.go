//go:build !linux

package sandbox

// Reexec does nothing on systems without the sandbox.
func Reexec() {}

// New returns [Direct] when the configuration asks for no sandbox, else an
// error: there is one for Linux only.
func New(cfg Config) (Sandbox, error) {
	if cfg.None {
		return Direct{}, nil
	}
	return nil, &MissingError{Bubblewrap, "there is a sandbox for Linux only", "run the build service on Linux"}
}
