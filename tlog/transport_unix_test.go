//go:build unix

package tlog

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is no file is an error, and nothing to wait for.
func TestReadNoFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.head")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Skip("no pipes in files here: ", err)
	}
	for _, name := range []string{name, t.TempDir()} {
		if _, err := readFile(name, 100); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v; want an error that says what it is", name, err)
		}
	}
}
