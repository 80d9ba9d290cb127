package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reexecAttack is the program's first argument when it attacks its own sandbox.
const reexecAttack = "sandbox-attack\x01"

// An attackPlan is what the attack program is told about the outside.
type attackPlan struct {
	Secret   string // file outside that no build may read
	ReadOnly string // folder inside that no build may change
	Writable string // folder inside that a build may change
	TCP, UDP string // addresses of listeners outside
	Unix     string // abstract unix socket outside
	Pid      int    // of the server
	FileSize int64  // limit that must hold
}

// attack tries what hostile source would and prints a line for each attempt
// that succeeded. It returns an error only when the attack itself is wrong.
func attack(args []string) error {
	var p attackPlan
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &p) != nil {
		return errors.New("started by hand")
	}
	// A network that drops packets must not make the attempt hang.
	const patience = 2 * time.Second
	dial := func(network, addr string) error {
		c, err := net.DialTimeout(network, addr, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if network == "udp" {
			// Sent is not arrived: a private network without routes refuses to send.
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			buf := make([]byte, 1)
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			_, err := c.Read(buf)
			return err
		}
		return nil
	}
	create := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "planted"), []byte("x"), 0o600)
	}
	for _, a := range []struct {
		name string
		try  func() error // nil: the attack succeeded
	}{
		{"read a secret of the server", func() error { _, err := os.ReadFile(p.Secret); return err }},
		{"read /etc/shadow", func() error { _, err := os.ReadFile("/etc/shadow"); return err }},
		{"read /etc/passwd", func() error { _, err := os.ReadFile("/etc/passwd"); return err }},
		{"read the memory of the server", func() error {
			_, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/maps")
			return err
		}},
		{"write to a read-only folder", func() error { return create(p.ReadOnly) }},
		{"write to the root folder", func() error { return create("/") }},
		{"make a read-only folder writable", func() error {
			return unix.Mount("none", p.ReadOnly, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}},
		{"mount a file system", func() error { return unix.Mount("none", p.Writable, "tmpfs", 0, "") }},
		{"make a user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"make a device", func() error {
			return unix.Mknod(filepath.Join(p.Writable, "mem"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))
		}},
		{"become root", func() error {
			if err := unix.Setuid(0); err != nil {
				return err
			}
			if os.Getuid() != 0 {
				return errors.New("another number")
			}
			return nil
		}},
		{"signal the server", func() error { return unix.Kill(p.Pid, 0) }},
		{"TCP to the server", func() error { return dial("tcp", p.TCP) }},
		{"UDP to the server", func() error { return dial("udp", p.UDP) }},
		{"TCP to the internet", func() error { return dial("tcp", "192.0.2.1:80") }},
		{"unix socket of the server", func() error { return dial("unix", p.Unix) }},
		{"socket to the hypervisor", func() error { return filtered(unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)) }},
		{"ring of requests to the kernel", func() error {
			var params [128]byte
			fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
			if errno != 0 {
				return errno
			}
			return filtered(int(fd), nil)
		}},
		{"write a file over the limit", func() error { return hog(filepath.Join(p.Writable, "hog"), p.FileSize+1) }},
		{"fill /tmp", func() error { return fill(tmpDir, 1<<30) }},
		{"fork bomb", forkBomb},
	} {
		if err := a.try(); err == nil {
			fmt.Println(attackMark + a.name)
		}
	}
	fmt.Println(attackEnd)
	return nil
}

// filtered closes a descriptor that could be had, which is an attack where
// system calls are filtered.
func filtered(fd int, err error) error {
	if err != nil {
		return err
	}
	_ = unix.Close(fd)
	if callFilter() == nil {
		return errors.New("not filtered on this machine")
	}
	return nil
}

// hog writes a sparse file of a size.
func hog(name string, size int64) error {
	// The limit's signal would end the process; the error is what counts.
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer f.Close()
	return f.Truncate(size)
}

// fill writes files until size bytes are there.
func fill(dir string, size int64) error {
	buf := make([]byte, 1<<20)
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for n := int64(0); n < size; n += int64(len(buf)) {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// forkBomb starts processes up to a number that no build needs.
func forkBomb() error {
	var started []*exec.Cmd
	defer func() {
		for _, c := range started {
			_ = c.Process.Kill() // ends with the sandbox anyway
			_ = c.Wait()
		}
	}()
	for range bombSize {
		c := exec.Command(innerPath, reexecSleep)
		if err := c.Start(); err != nil {
			return err
		}
		started = append(started, c)
	}
	return nil
}

// bombSize is more than the limit of the probe.
const bombSize = 80

// reexecSleep is the program's first argument as a part of the fork bomb.
const reexecSleep = "sandbox-sleep\x01"

const (
	attackMark = "SUCCEEDED: "
	attackEnd  = "END OF ATTACKS"
)

// eat uses memory until the process is ended.
func eat() error {
	var keep [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
		if len(keep) > 256 { // 4 GiB
			return nil
		}
	}
}

const reexecEat = "sandbox-eat\x01"

func sleep() error {
	_, err := syscall.Select(0, nil, nil, nil, &syscall.Timeval{Sec: 20})
	return err
}
