//go:build !linux

package retain

import (
	"errors"
	"os"

	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/process"
)

// Keeper keeps nothing on systems other than Linux.
type Keeper struct{}

var _ process.Handover = (*Keeper)(nil)

// New returns a keeper that keeps nothing.
func New(Options) *Keeper { return new(Keeper) }

// Listen needs Linux.
func (k *Keeper) Listen(specs []ListenSpec) error {
	if len(specs) > 0 {
		return errors.New("opening the service's sockets: it needs Linux")
	}
	return nil
}

func (k *Keeper) Started(int, *os.File, string) {}
func (k *Keeper) Stopping(int)                  {}
func (k *Keeper) Ended(int, process.Exit)       {}
func (k *Keeper) Plain() bool                   { return true }
func (k *Keeper) Pass() []process.ListenFD      { return nil }
func (k *Keeper) Ready()                        {}
func (k *Keeper) Release()                      {}
func (k *Keeper) Abandon()                      {}
func (k *Keeper) Status() Status                { return Status{Off: "it needs Linux"} }
func (k *Keeper) Count() int                    { return 0 }
func (k *Keeper) Handoff(*handoff.Bundle) error { return nil }
func (k *Keeper) Resume()                       {}
func (k *Keeper) Adopt(*handoff.Bundle)         {}
func (k *Keeper) Restore(_ string, f *os.File)  { f.Close() }
