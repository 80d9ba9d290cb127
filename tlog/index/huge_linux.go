package index

import "golang.org/x/sys/unix"

// adviseHuge is about the huge pages that lie whole in a piece of memory. It
// changes nothing but speed, so an error is none.
func adviseHuge(at, size uintptr) {
	first, end := (at+hugePage-1)&^(hugePage-1), (at+size)&^(hugePage-1)
	if first < end {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, first, end-first, unix.MADV_HUGEPAGE)
	}
}
