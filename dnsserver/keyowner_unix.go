//go:build unix

package dnsserver

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file to whom another file or folder belongs. Only root can: for
// root's commands the server's user must go on being able to read the keys. What
// can't be given away stays ours, and a server that can't read it says so.
func keepOwner(file string, from fs.FileInfo) {
	if st, ok := from.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		_ = os.Chown(file, int(st.Uid), int(st.Gid))
	}
}
