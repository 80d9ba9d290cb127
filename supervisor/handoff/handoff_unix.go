//go:build unix

package handoff

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func duplicate(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func keepFromChildren(fd int) { syscall.CloseOnExec(fd) }

// number returns a file's descriptor without changing how it reads.
func number(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// Exec replaces this program by another, which gets the bundle. It returns only
// when that failed, and then everything is as before. The folder is for the
// list, for an instant.
func (b *Bundle) Exec(dir, file string, argv, env []string) error {
	fail := func(err error) error { return fmt.Errorf("starting %s in place of this program: %w", file, err) }
	var open []int
	numbers := map[string]int{}
	for name, f := range b.files {
		fd, err := number(f)
		if err != nil {
			return fail(err)
		}
		numbers[name] = fd
		open = append(open, fd)
	}
	l, err := b.write(dir, numbers)
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	fd, err := number(l)
	if err != nil {
		return fail(err)
	}
	open = append(open, fd)
	// No child may be started between here and the exec: it would keep what is handed over.
	syscall.ForkLock.Lock()
	for _, fd := range open {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			break
		}
	}
	if err == nil {
		err = syscall.Exec(file, argv, append(slices.Clip(slices.Clone(env)), envName+"="+strconv.Itoa(fd)))
	}
	for _, fd := range open {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.Unlock()
	return fail(err)
}

// Give makes a command's process get the bundle. The returned function is to be
// called when the command was started, or could not be.
func (b *Bundle) Give(dir string, cmd *exec.Cmd) (done func(), err error) {
	numbers := map[string]int{}
	for _, name := range b.Names() {
		numbers[name] = 3 + len(cmd.ExtraFiles)
		cmd.ExtraFiles = append(cmd.ExtraFiles, b.files[name])
	}
	l, err := b.write(dir, numbers)
	if err != nil {
		return nil, fmt.Errorf("handing over: %w", err)
	}
	cmd.Env = append(cmd.Env, envName+"="+strconv.Itoa(3+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, l)
	return func() { l.Close() }, nil
}

// Supported reports whether a program can be replaced by another here.
const Supported = true
