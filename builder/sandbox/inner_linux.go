package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The program's first argument when it re-executes itself; nobody types them.
const (
	reexecOuter = "sandbox-outer\x01"
	reexecInner = "sandbox-inner\x01"
	innerPath   = "/upkeep-sandbox"
)

// innerSetup is what the process inside does before it becomes the command.
type innerSetup struct {
	Limits   Limits
	Writable []string
	Network  bool
	Landlock bool
}

// Reexec takes over when this process was started by a [Sandbox] of the same
// program, and does not return then. It must be called first in main.
func Reexec() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case reexecOuter:
		err = outer(os.Args[2:])
	case reexecInner:
		err = inner(os.Args[2:])
	case reexecAttack:
		if err = attack(os.Args[2:]); err == nil {
			os.Exit(0)
		}
	case reexecEat:
		if err = eat(); err == nil {
			os.Exit(0)
		}
	case reexecSleep:
		err = sleep()
	default:
		return
	}
	fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
	os.Exit(125)
}

func inner(args []string) error {
	// What confines holds for a thread: the one that becomes the command.
	runtime.LockOSThread()
	if len(args) < 3 || args[1] != "--" {
		return errors.New("started by hand")
	}
	var setup innerSetup
	if err := json.Unmarshal([]byte(args[0]), &setup); err != nil {
		return err
	}
	if err := setLimits(setup.Limits); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	// The first one that the kernel ends when memory runs out is a build, never the server.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("900"), 0); err != nil {
		return fmt.Errorf("offering this process to the kernel when memory runs out: %w", err)
	}
	if setup.Landlock {
		if err := restrict(setup, append([]string{tmpDir}, setup.Writable...)); err != nil {
			return err
		}
	}
	if err := filterCalls(); err != nil {
		return err
	}
	beforeCommand()
	argv := args[2:]
	return fmt.Errorf("starting %s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// beforeCommand is for tests, to try and lose the limits.
var beforeCommand = func() {}

func setLimits(l Limits) error {
	for _, r := range []struct {
		name  string
		which int
		value int64
	}{
		{"processes", unix.RLIMIT_NPROC, l.Processes},
		{"file size", unix.RLIMIT_FSIZE, l.FileSize},
		{"memory", unix.RLIMIT_DATA, l.Memory},
		{"core", unix.RLIMIT_CORE, -1},
	} {
		v := uint64(max(r.value, 0))
		if r.value == 0 {
			continue
		}
		if err := unix.Setrlimit(r.which, &unix.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("limiting %s: %w", r.name, err)
		}
	}
	return nil
}

func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

const (
	fsRead    = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsFile    = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	fsWrite   = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	fsSpecial = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
)

// restrict puts a second wall behind the mount namespace: files may be changed
// below the writable folders only, and no device, pipe or socket can be made.
func restrict(setup innerSetup, writable []string) error {
	abi := landlockVersion()
	handled, write := uint64(fsRead|fsWrite|fsSpecial), uint64(fsRead|fsWrite)
	if abi >= 2 {
		handled |= unix.LANDLOCK_ACCESS_FS_REFER
		write |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		handled |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
		write |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	if abi >= 4 && !setup.Network {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("making Landlock rules: %w", errno)
	}
	defer unix.Close(int(fd))
	allow := func(path string, access uint64) error {
		p, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("allowing %s: %w", path, err)
		}
		defer unix.Close(p)
		rule := unix.LandlockPathBeneathAttr{Allowed_access: access & handled, Parent_fd: int32(p)}
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			return fmt.Errorf("allowing %s: %w", path, errno)
		}
		return nil
	}
	if err := allow("/", fsRead); err != nil {
		return err
	}
	if err := allow("/dev/null", fsFile); err != nil {
		return err
	}
	for _, dir := range writable {
		if err := allow(dir, write); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("applying Landlock rules: %w", errno)
	}
	return nil
}
