package index

import "golang.org/x/sys/unix"

// forget gives back the memory through which the file was read. The pages stay
// in the system's cache as long as it likes, and who reads them again finds them
// there. A merge reads all of a file and would seem to need memory for it.
func (db *database) forget() {
	if fi, err := db.pages.Stat(); err == nil {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, db.Info().Data, uintptr(fi.Size()), unix.MADV_DONTNEED)
	}
}
