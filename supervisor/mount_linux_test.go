package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/upkeep/internal/config"
)

// onDisk gives the bench a small file system of its own.
func (b *bench) onDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves so many bytes of a file system free.
func fill(t *testing.T, dir string, left int64) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	free := int64(st.Bavail)*st.Bsize - left
	buf := make([]byte, 64<<10)
	for free > 0 {
		n, err := f.Write(buf[:min(free, int64(len(buf)))])
		if free -= int64(n); err != nil {
			break // full
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// The disk of the state, of the binaries, or of both, is full or can't be
// written for a while: the service runs, status says so, and with room again the
// update goes through.
func testRealDisk(t *testing.T) {
	for _, tc := range []struct {
		name  string
		where string // what is on the disk
		spoil func(t *testing.T, dir string) (heal func())
		said  string
		start bool // spoilt from the start: a disk with an open file can't be made read-only by a command
	}{
		{"state full", "state", func(t *testing.T, dir string) func() { return fill(t, dir, 0) }, "no space left", false},
		{"state read-only", "state", readOnly, "read-only file system", true},
		{"binaries full", "binaries", func(t *testing.T, dir string) func() { return fill(t, dir, 1<<20) }, "MB free", false},
		{"binaries read-only", "binaries", readOnly, "read-only file system", false},
		{"both read-only", "both", readOnly, "read-only file system", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "")
			disk := b.onDisk(t, "64m")
			b.cfg.Updates.BackoffMin, b.cfg.Updates.BackoffMax = config.Duration(100*1e6), config.Duration(500*1e6)
			if tc.where != "binaries" {
				b.cfg.State = filepath.Join(disk, "state")
			}
			if tc.where != "state" {
				b.dir = disk
				b.cfg.Service.Path = filepath.Join(disk, "hello")
				b.place("v1.0.0")
				if err := os.Symlink("hello-v1.0.0-"+testGo, b.cfg.Service.Path); err != nil {
					t.Fatal(err)
				}
				b.syncs = true
			}
			var heal func()
			if tc.start {
				if err := os.MkdirAll(b.cfg.State, 0o700); err != nil {
					t.Fatal(err)
				}
				heal = tc.spoil(t, disk)
			}
			b.start()
			s := b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && !s.Knowledge.Fresh.IsZero() })
			pid := s.Service.Pid
			if !tc.start {
				heal = tc.spoil(t, disk)
			}
			b.publish("v1.0.1")
			s = b.until("complaint", func(s Status, v string) bool { return s.Update == nil && s.Code == CodeFailing })
			if !strings.Contains(s.Summary, tc.said) {
				t.Errorf("status %q; want %q", s.Summary, tc.said)
			}
			if s.Service.Pid != pid || b.serves() != "v1.0.0" {
				t.Errorf("the service is process %d, was %d", s.Service.Pid, pid)
			}
			if tc.start {
				b.stop()
			}
			heal()
			if tc.start {
				b.start()
			}
			b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil && s.Code == CodeCurrent })
			if got := b.target(); got != "v1.0.1" {
				t.Errorf("the link points at %s", got)
			}
			b.stop()
		})
	}
}

func readOnly(t *testing.T, dir string) (heal func()) {
	remount := func(flags uintptr) {
		t.Helper()
		// A process that is just being started has the files that were open for
		// writing a moment ago, until it runs its program.
		waitFor(t, "mounting "+dir+" anew", func() bool {
			err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, "")
			if err != nil && !errors.Is(err, unix.EBUSY) {
				t.Fatalf("mounting %s anew: %v", dir, err)
			}
			return err == nil
		})
	}
	remount(unix.MS_RDONLY)
	return func() { remount(0) }
}
