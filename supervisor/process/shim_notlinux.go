//go:build !linux

package process

import (
	"errors"
	"os"
)

// Shim does nothing on systems other than Linux.
func Shim() {}

// CanTellBinds returns why it can't.
func CanTellBinds(string) error { return errors.New("it needs Linux") }

// ParseRlimit says that there are none.
func ParseRlimit(s string) (Rlimit, error) {
	return Rlimit{}, errors.New("resource limits need Linux; set them for upkeep itself")
}

func (r *OS) startShim(Spec, []string, *os.ProcAttr) (*os.Process, error) {
	return nil, errors.New("it needs Linux")
}
