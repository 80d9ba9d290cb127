package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Some of the kernel is in no namespace: sockets to the hypervisor (vsock), and
// keys, which belong to the user. Nor does a filter of calls see what a ring of
// requests (io_uring) does. No build needs them, nor the rest of this list,
// which has let much hostile code into the kernel.
var refused = []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD}

// families are those of the sockets that a build may make.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// auditArch is how the kernel names the machine's own system calls. Other
// machines have a second way to make sockets, and no filter.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "riscv64": unix.AUDIT_ARCH_RISCV64}[runtime.GOARCH]

// callFilter returns the program that decides about system calls, nil for none.
func callFilter() []unix.SockFilter {
	if auditArch == 0 {
		return nil
	}
	const (
		number, arch, arg0 = 0, 4, 16 // in struct seccomp_data, little-endian
		x32                = 1 << 30  // calls of a third kind on amd64
		load               = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal              = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast            = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret                = unix.BPF_RET | unix.BPF_K
		no                 = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	p := []unix.SockFilter{
		{Code: load, K: arch},
		{Code: equal, K: auditArch, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: number},
	}
	// Each test passes over the answer behind it, unless it holds.
	answer := func(test uint16, k, with uint32) {
		p = append(p, unix.SockFilter{Code: test, K: k, Jf: 1}, unix.SockFilter{Code: ret, K: with})
	}
	if runtime.GOARCH == "amd64" {
		answer(atLeast, x32, no)
	}
	for _, call := range refused {
		answer(equal, call, no)
	}
	p = append(p,
		unix.SockFilter{Code: equal, K: unix.SYS_SOCKET, Jt: 1},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: load, K: arg0})
	for _, f := range families {
		answer(equal, f, unix.SECCOMP_RET_ALLOW)
	}
	return append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)})
}

// filterCalls applies the filter to this thread and what it becomes.
func filterCalls() error {
	p := callFilter()
	if p == nil {
		return nil
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	return nil
}
