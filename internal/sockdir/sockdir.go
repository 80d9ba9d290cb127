// Package sockdir makes folders for tests in which sockets lie. A socket's name
// has at most 104 bytes on some systems, and testing's own folders carry the
// names of the tests.
package sockdir

import (
	"os"
	"testing"
)

// New returns a folder of the test's own that every user may enter.
func New(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "uk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the test's folder: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
