//go:build !linux

package cgroup

// A Group is the control group that is delegated to the unit. It needs Linux.
type Group struct{}

// Delegated returns [ErrNone].
func Delegated() (*Group, error) { return nil, ErrNone }

func (g *Group) Make() (string, error) { return "", ErrNone }
func (g *Group) Left() []string        { return nil }

// Has is false where there are no groups.
func Has(dir string, pid int) bool { return false }

// Kill has nothing to do where there are no groups.
func Kill(dir string) error { return nil }
