package retain

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// listen answers a run's notifications until no process of it is left.
func (k *Keeper) listen(r *run) {
	r.loop = make(chan struct{})
	go func() {
		defer close(r.loop)
		for {
			n, err := receive(r.notify)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return // quiesced
			}
			if err != nil {
				k.mu.Lock()
				if err != errGone && !errors.Is(err, os.ErrClosed) {
					k.warn("the kernel no longer tells of the service's calls: " + err.Error())
				}
				r.notify.Close()
				r.notify = nil
				k.mu.Unlock()
				return
			}
			k.answer(r, n)
		}
	}()
}

// answer lets a call go on or does it; whatever goes wrong, it goes on.
func (k *Keeper) answer(r *run, n *notification) {
	k.mu.Lock()
	defer k.mu.Unlock()
	done, err := k.bind(r, n)
	if err != nil {
		k.opts.Lost(LostError)
		k.warn("a socket of the service isn't kept: " + err.Error())
	}
	if done {
		err = succeed(r.notify, n.id)
	} else {
		err = goOn(r.notify, n.id)
	}
	if err != nil && err != unix.ENOENT { // its process may be gone by now
		k.warn("answering the kernel: " + err.Error())
	}
}

// bind handles a bind call. It reports whether the call was done in the
// service's place.
func (k *Keeper) bind(r *run, n *notification) (done bool, err error) {
	pid, err := processOf(int(n.pid))
	if err != nil {
		return false, fmt.Errorf("its process isn't seen from here: %w", err)
	}
	at := int(int32(n.args[0]))
	fd, cloexec, err := descriptor(pid, at)
	if errors.Is(err, unix.EBADF) {
		return false, nil // its mistake, which it is to see
	}
	if err != nil {
		return false, err
	}
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	want, ok, err := keyOf(fd)
	if err != nil || !ok {
		return false, nil // no socket, or one of a family that isn't kept
	}
	size := min(int(int32(n.args[2])), unix.SizeofSockaddrAny)
	if size <= 0 {
		return false, nil
	}
	data, err := memory(int(n.pid), n.args[1], size)
	if errors.Is(err, unix.EFAULT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if want.Addr, ok = parseAddr(data, want.V6); !ok {
		return false, nil
	}
	if !valid(r.notify, n.id) {
		return false, nil // whoever has that id now, it isn't who called
	}
	inode, err := inodeOf(fd)
	if err != nil {
		return false, err
	}
	if i := slices.IndexFunc(k.kept, func(s *kept) bool { return s.inode == inode }); i >= 0 {
		s := k.kept[i]
		if bound(s.fd) {
			// Given, and told again after a signal; or the service's mistake.
			return s.given && s.pid == pid && s.at == at && s.Key == want, nil
		}
		k.kept = slices.Delete(k.kept, i, i+1) // an earlier try failed
		k.close(s)
	}
	k.closedBy(pid, want)
	give, drop, keep := decide(want, k.views())
	if give >= 0 {
		s := k.kept[give]
		if key, ok := serves(s.fd); !ok || key != s.Key {
			// It is no longer what it was when its process ended.
			give, drop, keep = -1, []int{give}, true
		}
	}
	if want.Shared && (give >= 0 || keep) {
		k.warn(fmt.Sprintf("%s is opened with SO_REUSEPORT: of several sockets on one address the first is kept", want))
	}
	if give >= 0 {
		s := k.kept[give]
		// What could not be given the service binds by itself.
		err := k.give(r, n, s, pid, at, fd, cloexec)
		return err == nil, err
	}
	gone := map[*kept]bool{}
	for _, i := range drop {
		gone[k.kept[i]] = true
	}
	k.drop(func(s *kept) string {
		if gone[s] {
			return LostChanged
		}
		return ""
	})
	switch {
	case keep:
		k.kept = append(k.kept, &kept{Key: want, fd: fd, inode: inode, pid: pid, at: at, claimed: true})
		fd = -1
	case len(k.kept) >= maxSockets:
		k.opts.Lost(LostTooMany)
		k.warn(fmt.Sprintf("the service binds more than %d sockets; the others aren't kept", maxSockets))
	}
	return false, nil
}

// give puts a kept socket in place of the caller's.
func (k *Keeper) give(r *run, n *notification, s *kept, pid, at, theirs int, cloexec bool) error {
	if s.claimed {
		k.warn(fmt.Sprintf("the service opens %s again while it runs; between its close and the next bind clients wait instead of being refused", s.Key))
	}
	flags, err := unix.FcntlInt(uintptr(theirs), unix.F_GETFL, 0)
	if err == nil {
		err = unix.SetNonblock(s.fd, flags&unix.O_NONBLOCK != 0)
	}
	if err == nil {
		loud(s.fd)
		s.quiet = false
		err = k.replace(r.notify, n.id, s.fd, at, cloexec)
	}
	if err != nil {
		// Its own socket is still there; ours must not be in the way.
		k.drop(func(x *kept) string {
			if x == s {
				return LostError
			}
			return ""
		})
		return fmt.Errorf("passing %s on: %w", s.Key, err)
	}
	s.pid, s.at, s.claimed, s.given = pid, at, true, true
	k.log.Info("the new process goes on with the socket of the one before", "socket", s.Key.String(), "pid", pid)
	return nil
}

// closedBy gives up what a process has closed and doesn't open again now: it
// goes on without.
func (k *Keeper) closedBy(pid int, want Key) {
	k.kept = slices.DeleteFunc(k.kept, func(s *kept) bool {
		if s.pid != pid || !s.claimed || s.Key == want || s.open() {
			return false
		}
		k.close(s)
		return true
	})
}

func (k *Keeper) views() []view {
	vs := make([]view, len(k.kept))
	for i, s := range k.kept {
		vs[i] = view{s.Key, s.open()}
	}
	return vs
}

// open reports whether the process that had the socket still has it.
func (s *kept) open() bool {
	open, at := hasOpen(s.pid, s.inode, s.at)
	s.at = at
	return open
}

func bound(fd int) bool {
	k, err := boundTo(fd)
	return err == nil && k.Addr.Port() != 0
}
