//go:build unix

package supervisor

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/upkeep/supervisor/process"
)

func TestMayDo(t *testing.T) {
	user := &process.Cred{UID: 1000, GID: 100, Groups: []uint32{100, 27}}
	for _, tc := range []struct {
		owner, group uint32
		mode, bits   fs.FileMode
		want         bool
	}{
		{1000, 0, 0o700, 2, true}, {1000, 0, 0o577, 2, false}, // the owner's bits alone count
		{0, 100, 0o070, 2, true}, {0, 27, 0o070, 1, true}, {0, 27, 0o707, 1, false},
		{0, 0, 0o755, 2, false}, {0, 0, 0o755, 1, true}, {0, 0, 0o777, 2, true}, {0, 0, 0o750, 1, false},
	} {
		if got := mayDo(user, tc.owner, tc.group, tc.mode, tc.bits); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
	if !mayDo(&process.Cred{}, 5, 5, 0, 2) || mayDo(&process.Cred{}, 5, 5, 0o644, 1) {
		t.Error("root")
	}
}

// A service's user who can change the binary, or not execute it, is news.
func TestAccessWarning(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hello")
	if err := os.WriteFile(file, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	other := &process.Cred{UID: uint32(os.Geteuid()) + 1, GID: uint32(os.Getegid()) + 1}
	chmod := func(name string, mode fs.FileMode) {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	warn := func(want string) {
		t.Helper()
		got := accessWarning(other, file, file)
		if strings.Contains(got, "may not enter") && want != "may not enter" {
			t.Skip("the folder for temporary files can't be entered by others: ", got)
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("warned %q; want %q", got, want)
		}
	}
	chmod(filepath.Dir(dir), 0o755)
	chmod(dir, 0o755)
	warn("")
	chmod(file, 0o777)
	warn("can write " + file + ":")
	chmod(file, 0o755)
	chmod(dir, 0o777)
	warn("can write " + dir + ":")
	chmod(dir, 0o755)
	chmod(file, 0o744)
	warn("may not execute")
	chmod(file, 0o755)
	chmod(dir, 0o700)
	warn("may not enter")
	if got := accessWarning(nil, file, file); got != "" {
		t.Errorf("upkeep's own user: %q", got)
	}
}
