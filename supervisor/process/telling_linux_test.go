package process

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// envRefuse has this test refuse a system call to itself.
const envRefuse = "UPKEEP_TEST_REFUSE"

// refuse has the kernel refuse a system call to this process, as containers do.
func refuse(call uint32) error {
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return errno
	}
	return nil
}

// What a container refuses is found out before the service is started, and named.
func TestCannotTellBinds(t *testing.T) {
	needTelling(t)
	calls := map[string]uint32{"seccomp": unix.SYS_SECCOMP, "pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_getfd": unix.SYS_PIDFD_GETFD}
	if name := os.Getenv(envRefuse); name != "" {
		if err := refuse(calls[name]); err != nil {
			t.Fatal(err)
		}
		fmt.Println("said:", CanTellBinds("/proc/self/exe"))
		return
	}
	for name := range calls {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCannotTellBinds$")
		cmd.Env = append(os.Environ(), envRefuse+"="+name)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "("+name+": operation not permitted)") {
			t.Errorf("%s refused: %s, %v", name, out, err)
		}
	}
}
