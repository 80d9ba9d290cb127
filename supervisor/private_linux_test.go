package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/upkeep/internal/sockdir"
)

// A control socket is its owner's whatever the umask is, and what is made in the
// same moment is as it is to be.
func TestListenPrivate(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := sockdir.New(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 300 {
			name := filepath.Join(dir, "s")
			l, err := ListenControl(name, "")
			if err != nil {
				t.Error(err)
				return
			}
			if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("socket: %v, %v", fi, err)
			}
			l.Close()
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o755 {
			t.Fatalf("folder made beside it: %v, %v", fi, err)
		}
	}
}
