//go:build !unix

package supervisor

import (
	"errors"
	"os"

	"example.org/upkeep/supervisor/handoff"
)

func (w *watched) replace(*handoff.Bundle) (*os.File, error) { return nil, errors.ErrUnsupported }
