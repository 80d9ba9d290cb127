//go:build !unix

package supervisor

import (
	"errors"

	"example.org/upkeep/supervisor/handoff"
)

func (w *watched) takeOver(*handoff.Bundle, standIn) error { return errors.ErrUnsupported }
