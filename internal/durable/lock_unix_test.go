//go:build unix

package durable

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A descriptor that somebody inherited doesn't keep a lock that was given up.
func TestUnlockInherited(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := unix.Dup(int(l.f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if l, err = Lock(name); err != nil {
		t.Fatalf("after the unlock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}
