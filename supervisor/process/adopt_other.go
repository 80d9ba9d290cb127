//go:build !linux

package process

import (
	"errors"

	"example.org/upkeep/supervisor/handoff"
)

// Adopt needs a system that tells of the end of processes that aren't children.
func (r *OS) Adopt(*handoff.Bundle, Spec) (Process, error) { return nil, errors.ErrUnsupported }

func (p *osProcess) killGroup() bool { return killGroup(p.pid) }

func (p *osProcess) killMarked() bool { return false }
