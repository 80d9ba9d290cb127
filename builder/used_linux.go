package builder

import (
	"io/fs"
	"syscall"
)

// wasRead reports whether a link was followed since it was made. The kernel
// notes the first time also when it is mounted relatime; noatime leaves no sign.
func wasRead(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && (st.Atim.Sec > st.Mtim.Sec || st.Atim.Sec == st.Mtim.Sec && st.Atim.Nsec > st.Mtim.Nsec)
}
