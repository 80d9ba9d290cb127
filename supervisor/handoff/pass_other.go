//go:build !unix

package handoff

import (
	"errors"
	"net"
)

// Send needs a system that passes descriptors to other processes.
func (b *Bundle) Send(*net.UnixConn) error { return errors.ErrUnsupported }

// ReceiveFrom needs the same.
func ReceiveFrom(*net.UnixConn) (*Bundle, error) { return nil, errors.ErrUnsupported }
