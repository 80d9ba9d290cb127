//go:build unix

package tlog

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isFull reports whether an error says that the disk or a quota is full.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
