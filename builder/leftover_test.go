package builder

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/durable"
)

// A lock that is held for a moment longer, by a command of a killed server that
// was just being started, does not keep the next from starting; another service
// does.
func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	held, err := durable.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(dir, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "another build service uses") {
		t.Errorf("while another holds it: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { held.Unlock() })
	l, err := lockFolder(dir, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}
