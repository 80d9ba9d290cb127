package retain

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is the kernel's struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32 // of the thread
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// addfd is struct seccomp_notif_addfd.
type addfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// Not in every architecture's part of the unix package.
const (
	ioctlAddfd   = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD
	ioctlIDValid = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
)

func ioctl(fd uintptr, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// errGone: no process is left whose calls are told.
var errGone = errors.New("no process is left")

// receive returns the next notification. It parks in the poller, not in a thread.
func receive(f *os.File) (*notification, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := new(notification)
	var got error
	err = raw.Read(func(fd uintptr) bool {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
				got = err
				return true
			}
			switch {
			case p[0].Revents&unix.POLLIN != 0:
				*n = notification{} // the kernel wants zeros
				got = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
				if got == unix.ENOENT {
					continue // its process has just been killed
				}
				return true
			case p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0:
				got = errGone
				return true
			}
			return false
		}
	})
	if err != nil {
		return nil, err
	}
	return n, got
}

// valid reports whether the notified call still waits, that is whether the
// thread's id still means that thread.
func valid(f *os.File, id uint64) bool {
	return control(f, ioctlIDValid, unsafe.Pointer(&id)) == nil
}

// goOn lets the call happen as if nobody had been told.
func goOn(f *os.File, id uint64) error {
	r := response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	return control(f, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// succeed makes the call return 0.
func succeed(f *os.File, id uint64) error {
	return control(f, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response{id: id}))
}

// replace puts one of our descriptors over one of the caller's.
func replace(f *os.File, id uint64, ours, theirs int, cloexec bool) error {
	a := addfd{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, srcfd: uint32(ours), newfd: uint32(theirs)}
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	return control(f, ioctlAddfd, unsafe.Pointer(&a))
}

func control(f *os.File, req uintptr, arg unsafe.Pointer) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var got error
	if err := raw.Control(func(fd uintptr) { got = ioctl(fd, req, arg) }); err != nil {
		return err
	}
	return got
}

// processOf returns the process that a thread belongs to.
func processOf(tid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if v, ok := bytes.CutPrefix(line, []byte("Tgid:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	return 0, errors.New("it has no process")
}

// descriptor duplicates a descriptor of another process, and tells whether it
// closes on exec there.
func descriptor(pid, fd int) (dup int, cloexec bool, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, false, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	if dup, err = unix.PidfdGetfd(pidfd, fd, 0); err != nil {
		return -1, false, fmt.Errorf("pidfd_getfd: %w", err)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		unix.Close(dup)
		return -1, false, err
	}
	for line := range bytes.Lines(info) {
		if v, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 8, 64)
			return dup, err == nil && flags&unix.O_CLOEXEC != 0, nil
		}
	}
	return dup, true, nil
}

// memory reads from another process's memory.
func memory(pid int, addr uint64, n int) ([]byte, error) {
	buf := make([]byte, n)
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(n)
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}
	got, err := unix.ProcessVMReadv(pid, local, remote, 0)
	if err != nil {
		return nil, fmt.Errorf("process_vm_readv: %w", err)
	}
	return buf[:got], nil
}
