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

func (r *OS) startShim(Spec, []string, *os.ProcAttr) (*os.Process, error) {
	return nil, errors.New("it needs Linux")
}
