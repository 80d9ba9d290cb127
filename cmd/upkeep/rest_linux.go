package main

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rest gives back the memory that work needed and waiting doesn't: free heap,
// and the pages of this program's code and constants, most of which were used
// at the start only. Those that are needed again come back from the page cache.
func rest() {
	debug.FreeOSMemory()
	if !staticProgram() {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	sc := bufio.NewScanner(maps)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 6 || f[5] != exe || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		lo, errLo := strconv.ParseUint(from, 16, 64)
		hi, errHi := strconv.ParseUint(to, 16, 64)
		if errLo != nil || errHi != nil || hi <= lo {
			continue
		}
		// Read-only pages of the file itself: dropping them loses nothing.
		_ = unix.Madvise(unsafe.Slice((*byte)(fixed(uintptr(lo))), hi-lo), unix.MADV_DONTNEED)
	}
}

// fixed is the address of something that the garbage collector doesn't move or free.
func fixed(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// staticProgram reports whether this program is loaded at a fixed address.
// Otherwise constants were relocated in memory and aren't those of the file.
func staticProgram() bool {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	var head [18]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return false
	}
	const execType = 2 // ET_EXEC
	return head[5] == 1 && head[16] == execType || head[5] == 2 && head[17] == execType
}
