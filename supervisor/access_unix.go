//go:build unix

package supervisor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"example.org/upkeep/supervisor/process"
)

// mayDo reports whether a user may do to a file what the bits say (4 read, 2
// write, 1 execute), by owner, group and mode.
func mayDo(c *process.Cred, owner, group uint32, mode fs.FileMode, bits fs.FileMode) bool {
	switch {
	case c.UID == 0:
		return bits&1 == 0 || mode&0o111 != 0
	case c.UID == owner:
		return mode>>6&bits == bits
	case c.GID == group || slices.Contains(c.Groups, group):
		return mode>>3&bits == bits
	}
	return mode&bits == bits
}

// accessWarning says what is wrong with the service's user's rights to its
// binary: it has to execute it, and should not be able to change it, since
// whoever takes the service over would then decide what runs next time.
func accessWarning(c *process.Cred, path, file string) string {
	if c == nil || c.UID == 0 {
		return "" // upkeep's own user, or one who may do everything
	}
	var writable []string
	may := func(name string, bits fs.FileMode) (ok, known bool) {
		fi, err := os.Stat(name)
		if err != nil {
			return false, false
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return false, false
		}
		return mayDo(c, st.Uid, st.Gid, fi.Mode().Perm(), bits), true
	}
	if ok, known := may(file, 1); known && !ok {
		return fmt.Sprintf("the service's user (%d) may not execute %s", c.UID, file)
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if ok, known := may(dir, 1); known && !ok {
			return fmt.Sprintf("the service's user (%d) may not enter %s, where its binary is", c.UID, dir)
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for _, name := range []string{file, filepath.Dir(file), filepath.Dir(path)} {
		if ok, _ := may(name, 2); ok && !slices.Contains(writable, name) {
			writable = append(writable, name)
		}
	}
	if len(writable) > 0 {
		return fmt.Sprintf("the service's user (%d) can write %s: whoever takes the service over decides what runs next time", c.UID, strings.Join(writable, " and "))
	}
	return ""
}
