//go:build !linux

package process

import (
	"errors"
	"syscall"
)

func joinGroup(*syscall.SysProcAttr, string) (done func(), err error) {
	return func() {}, errors.New("control groups need Linux")
}

func leaveGroup(*syscall.SysProcAttr, error) bool { return false }
