//go:build !unix

package handoff

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Supported reports whether a program can be replaced by another here.
const Supported = false

func duplicate(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }

func keepFromChildren(int) {}

// Exec needs a system on which a program can be replaced by another.
func (b *Bundle) Exec(dir, file string, argv, env []string) error { return errors.ErrUnsupported }

// Give needs the same.
func (b *Bundle) Give(dir string, cmd *exec.Cmd) (done func(), err error) {
	return nil, errors.ErrUnsupported
}
