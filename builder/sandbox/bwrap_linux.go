package sandbox

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// bwrap runs commands through bubblewrap.
type bwrap struct {
	path    string // of the bwrap program
	exe     *os.File
	user    int // 0: that of the server
	cgroups *cgroups
	libs    []string // folders of shared libraries, when this program needs them
	missing []string
	seq     atomic.Int64
}

// New returns the sandbox for this machine, or an error that says which
// mechanism is missing.
func New(cfg Config) (Sandbox, error) {
	if cfg.None {
		return Direct{}, nil
	}
	b := &bwrap{}
	lacks := func(err *MissingError) error {
		if err == nil {
			return nil
		}
		if slices.Contains(cfg.Without, err.Mechanism) {
			b.missing = append(b.missing, err.Mechanism)
			return nil
		}
		return err
	}
	var err error
	if b.path, err = exec.LookPath("bwrap"); err != nil {
		return nil, &MissingError{Bubblewrap, "there is no program bwrap", "install the package bubblewrap"}
	}
	if os.Geteuid() == 0 {
		b.user = cfg.User
		if b.user == 0 {
			b.user = DefaultUser
		}
	}
	// The magic link stays good when the program's file is replaced by a newer version.
	if b.exe, err = os.Open("/proc/self/exe"); err != nil {
		return nil, fmt.Errorf("opening this program's own file: %w", err)
	}
	if b.libs, err = libraries(b.exe); err != nil {
		return nil, fmt.Errorf("reading this program's own file: %w", err)
	}
	if landlockVersion() < 1 {
		if err := lacks(&MissingError{Landlock, "the kernel has no Landlock or it is not enabled", "run Linux 5.13 or later with landlock in its lsm list"}); err != nil {
			return nil, err
		}
	}
	cg, cgErr := openCgroups()
	if cgErr != nil {
		if err := lacks(&MissingError{Cgroup, cgErr.Error(), "run as root or as a systemd service with Delegate=yes"}); err != nil {
			return nil, err
		}
	}
	b.cgroups = cg
	return b, nil
}

// libraries returns the folders of shared libraries if a program needs any.
// Programs built with CGO_ENABLED=0, as ours are, need none.
func libraries(exe io.ReaderAt) ([]string, error) {
	f, err := elf.NewFile(exe)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		for _, dir := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
			if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs, nil
}

func (b *bwrap) Path(m Mount) string { return m.Target }

func (b *bwrap) Missing() []string { return slices.Clone(b.missing) }

func (b *bwrap) Own(path string) error {
	if b.user == 0 {
		return nil
	}
	return filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, b.user, b.user)
	})
}

// Run starts this program as the sandbox user, which waits until it is in its
// cgroup and becomes bwrap, which starts this program again inside, which sets
// the last limits and becomes the command.
func (b *bwrap) Run(ctx context.Context, job Job) error {
	setup := innerSetup{Limits: job.Limits, Network: job.Network, Landlock: !slices.Contains(b.missing, Landlock)}
	args := []string{b.path,
		"--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup",
		"--disable-userns", "--die-with-parent", "--new-session", "--clearenv",
		"--hostname", "build", "--dev", "/dev", "--proc", "/proc",
	}
	if !job.Network {
		args = append(args, "--unshare-net")
	}
	if job.Limits.TmpSize > 0 {
		args = append(args, "--size", strconv.FormatInt(job.Limits.TmpSize, 10))
	}
	args = append(args, "--tmpfs", tmpDir)
	for _, dir := range b.libs {
		args = append(args, "--ro-bind", dir, dir)
	}
	for _, m := range job.Mounts {
		how := "--ro-bind"
		if m.Write {
			how = "--bind"
			setup.Writable = append(setup.Writable, m.Target)
		}
		args = append(args, how, m.Source, m.Target)
	}
	env := job.Env
	if !slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, "TMPDIR=") }) {
		env = append(slices.Clone(env), "TMPDIR="+tmpDir)
	}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		args = append(args, "--setenv", k, v)
	}
	dir := job.Dir
	if dir == "" {
		dir = tmpDir
	}
	setupJSON, err := json.Marshal(setup)
	if err != nil {
		return fmt.Errorf("describing the sandbox: %w", err)
	}
	// Descriptor 3 is the gate, 4 this program.
	args = append(args, "--chdir", dir, "--perms", "0555", "--ro-bind-data", "4", innerPath,
		// The folders made for the mounts are not for writing.
		"--remount-ro", "/",
		"--", innerPath, reexecInner, string(setupJSON), "--")
	args = append(args, job.Args...)

	gateR, gateW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting the sandbox: %w", err)
	}
	defer gateR.Close()
	defer gateW.Close()
	exe, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(b.exe.Fd()))) // an offset of its own
	if err != nil {
		return fmt.Errorf("starting the sandbox: %w", err)
	}
	defer exe.Close()
	group, err := b.cgroups.create(b.seq.Add(1), job.Limits)
	if err != nil {
		return err
	}
	defer group.remove()

	cmd := exec.Command("/proc/self/exe", append([]string{reexecOuter}, args...)...)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{gateR, exe}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if b.user != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(b.user), Gid: uint32(b.user)}
	}
	err = wait(ctx, cmd, job, func() error {
		if err := group.add(cmd.Process.Pid); err != nil {
			return err
		}
		if _, err := gateW.Write([]byte{1}); err != nil {
			return fmt.Errorf("starting the sandbox: %w", err)
		}
		return gateW.Close()
	})
	if cpu, ok := group.cpu(); ok && job.CPU != nil {
		job.CPU(cpu)
	}
	var exit *ExitError
	if errors.As(err, &exit) && group.outOfMemory() {
		return fmt.Errorf("%w (%w)", ErrMemory, err)
	}
	return err
}

// Outer is what the first re-execution does: it waits for the gate and becomes bwrap.
func outer(args []string) error {
	gate := os.NewFile(3, "gate")
	if _, err := io.ReadFull(gate, make([]byte, 1)); err != nil {
		return errors.New("the server went away")
	}
	if err := gate.Close(); err != nil {
		return err
	}
	if err := closeOthers(); err != nil {
		return fmt.Errorf("closing files that are none of the command's: %w", err)
	}
	return syscall.Exec(args[0], args, []string{})
}

// closeOthers keeps what the server was started with from the command: files
// that are open already no wall keeps from anybody.
func closeOthers() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 4 {
			syscall.CloseOnExec(n)
		}
	}
	return nil
}
