package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// native is the architecture as seccomp names it, and its bind call's number.
// Calls of another architecture (32-bit programs) pass.
var native = map[string]struct{ arch, bind uint32 }{
	"amd64": {unix.AUDIT_ARCH_X86_64, 49},
	"arm64": {unix.AUDIT_ARCH_AARCH64, 200},
}[runtime.GOARCH]

// bindFilter is the program that has bind told and lets everything else pass.
func bindFilter() []unix.SockFilter {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: load, K: 4}, // seccomp_data.arch
		{Code: jeq, K: native.arch, Jf: 3},
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: jeq, K: native.bind, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
}

// tellBinds installs the filter for the calling thread and what it becomes and
// starts, and returns the descriptor that tells of its bind calls. The thread
// has to be locked.
func tellBinds() (int, error) {
	if native.bind == 0 {
		return -1, errors.New("it is not made for " + runtime.GOARCH)
	}
	if !capable(unix.CAP_SYS_ADMIN) {
		// Without this the kernel takes no filter from an ordinary user.
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("no_new_privs: %w", err)
		}
	}
	prog := bindFilter()
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// Without WAIT_KILLABLE_RECV (kernels before 5.19) a signal interrupts a
	// bind that is being told, which is then told again.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	for _, f := range []uintptr{flags | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, flags} {
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f, uintptr(unsafe.Pointer(&fprog)))
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINVAL:
			continue
		case unix.EBUSY:
			return -1, errors.New("somebody else has the service's system calls told already, and the kernel allows one")
		}
		return -1, fmt.Errorf("seccomp: %w", errno)
	}
	return -1, fmt.Errorf("seccomp: %w", unix.EINVAL)
}

// capable reports whether this thread has a capability.
func capable(c uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

// CanTellBinds returns why the bind calls of a service can't be told here, as
// far as that can be known without trying.
func CanTellBinds(binary string) error {
	if !shimReady {
		return errors.New("this program can't start services through itself")
	}
	if native.bind == 0 {
		return errors.New("it is not made for " + runtime.GOARCH)
	}
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("the kernel does not tell of system calls (seccomp: %w)", errno)
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("the kernel gives no pidfd (pidfd_open: %w)", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return fmt.Errorf("descriptors of other processes can't be had (pidfd_getfd: %w)", err)
	}
	unix.Close(fd)
	if capable(unix.CAP_SYS_ADMIN) {
		return nil
	}
	// no_new_privs takes from a program what its file gives it.
	if fi, err := os.Stat(binary); err == nil && fi.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return fmt.Errorf("%s is setuid or setgid, which it would lose", binary)
	}
	if n, err := unix.Getxattr(binary, "security.capability", nil); err == nil && n > 0 {
		return fmt.Errorf("%s has file capabilities, which it would lose; use process.ambient_capabilities", binary)
	}
	return nil
}
