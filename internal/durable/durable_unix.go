//go:build unix

package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems (FUSE, SMB) can't sync a folder and say EINVAL: nothing more can be done there.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// A Locked is a held lock.
type Locked struct{ f *os.File }

// Lock takes the exclusive lock on the file called name, creating the file if
// needed, and returns [ErrLocked] at once when another process (or another
// Lock in this one) holds it. The kernel releases it when the process ends.
func Lock(name string) (*Locked, error) { return lock(name, unix.LOCK_EX|unix.LOCK_NB) }

// LockWait is Lock that waits for its turn.
func LockWait(name string) (*Locked, error) { return lock(name, unix.LOCK_EX) }

func lock(name string, how int) (*Locked, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return &Locked{f}, nil
}

// Unlock releases the lock. The lock file stays.
func (l *Locked) Unlock() error {
	// Closing alone would leave it to a child that is between its fork and its exec.
	err := unix.Flock(int(l.f.Fd()), unix.LOCK_UN)
	return errors.Join(err, l.f.Close())
}
