package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// syncDir does nothing: Windows has no sync of a folder.
func syncDir(string) error { return nil }

// A Locked is a held lock.
type Locked struct{ f *os.File }

// Lock takes the exclusive lock on the file called name, creating the file if
// needed, and returns [ErrLocked] at once when somebody else holds it.
func Lock(name string) (*Locked, error) {
	return lock(name, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
}

// LockWait is Lock that waits for its turn.
func LockWait(name string) (*Locked, error) { return lock(name, windows.LOCKFILE_EXCLUSIVE_LOCK) }

func lock(name string, flags uint32) (*Locked, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		err = ErrLocked
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return &Locked{f}, nil
}

// Unlock releases the lock. The lock file stays.
func (l *Locked) Unlock() error { return l.f.Close() }
