//go:build unix

package supervisor

import (
	"os"
	"syscall"
)

func idOf(name string) (fileID, bool) {
	fi, err := os.Lstat(name)
	if err != nil {
		return fileID{}, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}, true
}
