package retain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/process"
)

// A Listener is a socket that the supervisor itself holds and passes to each
// process of a service that knows how to take it.
type Listener struct {
	ListenSpec
	File *os.File
}

// Listen opens sockets, which stay open until [Keeper.Close].
func (k *Keeper) Listen(specs []ListenSpec) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, spec := range specs {
		if k.ownNamed(spec.Name) != nil {
			continue // received
		}
		f, err := listen(spec)
		if err != nil {
			return fmt.Errorf("opening the service's socket %q: %w", spec.Name, err)
		}
		k.own = append(k.own, &Listener{spec, f})
	}
	return nil
}

func (k *Keeper) ownNamed(name string) *Listener {
	for _, l := range k.own {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// Pass returns what the next process gets, in the order of the configuration.
func (k *Keeper) Pass() []process.ListenFD {
	k.mu.Lock()
	defer k.mu.Unlock()
	var fds []process.ListenFD
	for _, l := range k.own {
		// As a fresh one: the process before may have changed it.
		_ = unix.SetNonblock(int(l.File.Fd()), false)
		fds = append(fds, process.ListenFD{Name: l.Name, File: l.File})
	}
	return fds
}

// ownKept are the own sockets that a process has, as what holds connections off sees them.
func (k *Keeper) ownKept(pid int) []*kept {
	var list []*kept
	for i, l := range k.own {
		fd := int(l.File.Fd())
		key, ok := serves(fd)
		inode, err := inodeOf(fd)
		if ok && err == nil {
			list = append(list, &kept{Key: key, fd: fd, inode: inode, pid: pid, at: 3 + i})
		}
	}
	return list
}

func listen(s ListenSpec) (*os.File, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // new connections of plain TCP can be held off
	var c syscall.Conn
	if strings.HasPrefix(s.Network, "unix") {
		if err := removeStale(s.Address); err != nil {
			return nil, err
		}
	}
	switch s.Network {
	case "udp", "udp4", "udp6", "unixgram":
		p, err := lc.ListenPacket(context.Background(), s.Network, s.Address)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		if u, ok := p.(*net.UnixConn); ok {
			c = u
		} else {
			c = p.(*net.UDPConn)
		}
	case "tcp", "tcp4", "tcp6", "unix":
		l, err := lc.Listen(context.Background(), s.Network, s.Address)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
			c = u
		} else {
			c = l.(*net.TCPListener)
		}
	default:
		return nil, fmt.Errorf("network %q: it can be tcp, tcp4, tcp6, udp, udp4, udp6, unix or unixgram", s.Network)
	}
	f, err := blocking(c, s.Name)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(s.Network, "unix") {
		if err := errors.Join(os.Chmod(s.Address, s.Mode), own(s)); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

func own(s ListenSpec) error {
	if s.UID < 0 && s.GID < 0 {
		return nil
	}
	return os.Chown(s.Address, s.UID, s.GID)
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(name string) error {
	fi, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there already and no socket", name)
	}
	if c, err := net.Dial("unix", name); err == nil {
		c.Close()
		return fmt.Errorf("%s: somebody listens on it", name)
	}
	return os.Remove(name)
}

// blocking duplicates a socket into a file that the poller doesn't know: it
// must not be woken by the service's connections.
func blocking(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	var got error
	err = raw.Control(func(fd uintptr) {
		n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			got = err
			return
		}
		if got = unix.SetNonblock(n, false); got != nil {
			unix.Close(n)
			return
		}
		f = os.NewFile(uintptr(n), name)
	})
	return f, errors.Join(err, got)
}
