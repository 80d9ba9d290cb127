//go:build unix

package state

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What stands where a file should be keeps nobody waiting.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	f, h := File[value]{filepath.Join(dir, "state"), RealDisk{}}, History[value]{Name: filepath.Join(dir, "history")}
	for _, name := range []string{f.Name, h.Name} {
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			t.Skip(err)
		}
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		if _, _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("state: %v", err)
		}
		if _, err := h.Last(3); err == nil {
			t.Error("a history is read from a pipe")
		}
		if err := h.Append(value{}); err == nil {
			t.Error("a history is written to a pipe")
		}
		if err := f.Save(value{N: 1}); err != nil {
			t.Errorf("saving: %v", err)
		}
		if v, found, err := f.Load(); !found || err != nil || v.N != 1 {
			t.Errorf("saved: %v %v %v", v, found, err)
		}
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("somebody waits for the pipe")
	}
}
