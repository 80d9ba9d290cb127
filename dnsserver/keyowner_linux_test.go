package dnsserver

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// What root's commands write belongs to the folder's user, and a key that gets
// other times keeps its owner and mode: the server must be able to read both.
func TestKeyOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const user, group = 12345, 12346
	dir := t.TempDir()
	if err := os.Chown(dir, user, group); err != nil {
		t.Skip("this root can't give files away: ", err)
	}
	k, err := GenerateKey(dir, testZone, "ed25519", true, Timing{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(file string, gid uint32, mode os.FileMode) {
		t.Helper()
		fi, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != user || st.Gid != gid || fi.Mode().Perm() != mode {
			t.Errorf("%s belongs to %d:%d, %s", file, st.Uid, st.Gid, fi.Mode())
		}
	}
	check(k.File+".private", group, 0o600)
	check(k.File+".key", group, 0o644)
	if err := os.Chown(k.File+".private", user, group+1); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(k.File+".private", 0o640); err != nil {
		t.Fatal(err)
	}
	if err := k.Retime(Timing{Inactive: time.Now()}); err != nil {
		t.Fatal(err)
	}
	check(k.File+".private", group+1, 0o640)
}
