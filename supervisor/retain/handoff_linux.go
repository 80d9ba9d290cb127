package retain

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/handoff"
)

// number is a descriptor that package handoff can duplicate.
type number int

func (n number) SyscallConn() (syscall.RawConn, error)    { return n, nil }
func (n number) Control(f func(fd uintptr)) error         { f(uintptr(n)); return nil }
func (n number) Read(func(fd uintptr) (done bool)) error  { return os.ErrInvalid }
func (n number) Write(func(fd uintptr) (done bool)) error { return os.ErrInvalid }

// passed is what the next upkeep in this process has to know.
type passed struct {
	Kept  []passedSocket `json:"kept"`
	Runs  []passedRun    `json:"runs"`
	Own   []ListenSpec   `json:"own"`
	Early int            `json:"early"`
	Off   string         `json:"off"`
	Warn  []string       `json:"warn"`
	// Parting is missing from what an older upkeep passes.
	Parting []string `json:"parting,omitempty"`
}

type passedSocket struct {
	Pid     int  `json:"pid"`
	At      int  `json:"at"`
	Claimed bool `json:"claimed"`
	Given   bool `json:"given"`
	Stored  bool `json:"stored"`
}

type passedRun struct {
	Pid     int       `json:"pid"`
	Tells   bool      `json:"tells"`
	Started time.Time `json:"started"`
	Ready   bool      `json:"ready"`
	Had     bool      `json:"had"`
}

const handoffKey = "retain"

// Handoff puts what is kept into a bundle for an upkeep that takes the place of
// this one. From then on the service's bind calls wait, until that one answers
// them or [Keeper.Resume] is called.
func (k *Keeper) Handoff(b *handoff.Bundle) error {
	k.quiesce()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.review()
	p := passed{Early: k.early, Off: k.off, Warn: k.warnings, Parting: k.parting}
	for i, s := range k.kept {
		if s.quiet {
			loud(s.fd)
			s.quiet = false
		}
		if err := b.Add(fmt.Sprint("retain/socket/", i), number(s.fd)); err != nil {
			return err
		}
		p.Kept = append(p.Kept, passedSocket{s.pid, s.at, s.claimed, s.given, s.stored})
	}
	for i, r := range k.runs {
		if r.notify != nil {
			if err := b.Add(fmt.Sprint("retain/notify/", i), r.notify); err != nil {
				return err
			}
		}
		p.Runs = append(p.Runs, passedRun{r.pid, r.notify != nil, r.started, r.ready, r.had})
	}
	for i, l := range k.own {
		if err := b.Add(fmt.Sprint("retain/listen/", i), number(l.File.Fd())); err != nil {
			return err
		}
		p.Own = append(p.Own, l.ListenSpec)
	}
	return b.Put(handoffKey, p)
}

// quiesce stops answering.
func (k *Keeper) quiesce() {
	k.mu.Lock()
	k.quiet = true
	var loops []chan struct{}
	for _, r := range k.runs {
		if r.notify != nil {
			_ = r.notify.SetReadDeadline(time.Unix(1, 0)) // a closed one ends its loop itself
			loops = append(loops, r.loop)
		}
	}
	k.mu.Unlock()
	for _, l := range loops {
		<-l
	}
}

// Resume goes on after a [Keeper.Handoff] that led to nothing; otherwise it does
// nothing.
func (k *Keeper) Resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.quiet {
		return
	}
	k.quiet = false
	for _, r := range k.runs {
		if r.notify != nil {
			_ = r.notify.SetReadDeadline(time.Time{})
			k.listen(r)
		}
	}
}

// Adopt takes over from the upkeep that was in this process before.
func (k *Keeper) Adopt(b *handoff.Bundle) {
	var p passed
	if !b.Get(handoffKey, &p) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.early, k.off, k.warnings, k.parting = p.Early, p.Off, p.Warn, p.Parting
	for _, w := range slices.Concat(k.parting, k.warnings) {
		k.said[w] = true
	}
	for i, ps := range p.Kept {
		if s := adopt(b.Take(fmt.Sprint("retain/socket/", i))); s != nil {
			s.pid, s.at, s.claimed, s.given, s.stored = ps.Pid, ps.At, ps.Claimed, ps.Given, ps.Stored
			k.kept = append(k.kept, s)
		}
	}
	for i, l := range p.Own {
		if f := b.Take(fmt.Sprint("retain/listen/", i)); f != nil {
			if f := unpolled(f, l.Name); f != nil {
				k.own = append(k.own, &Listener{l, f})
			}
		}
	}
	unclaimed := false
	for _, s := range k.kept {
		unclaimed = unclaimed || !s.claimed
	}
	for i, pr := range p.Runs {
		r := &run{pid: pr.Pid, started: pr.Started, ready: pr.Ready, had: pr.Had}
		if pr.Tells {
			if r.notify = polled(b.Take(fmt.Sprint("retain/notify/", i))); r.notify == nil {
				k.warn("the service's calls are no longer told, so a bind of it fails; restart it")
				continue
			}
			k.listen(r)
		}
		k.runs = append(k.runs, r)
	}
	if unclaimed {
		k.deadline(k.opts.Claim)
	}
}

// Restore takes sockets that systemd kept or opened. Those that it opened are
// passed to the service, in its order and under its names.
func (k *Keeper) Restore(name string, f *os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !strings.HasPrefix(name, StoreName) {
		if f = unpolled(f, name); f == nil || k.ownNamed(name) != nil {
			return
		}
		l := &Listener{ListenSpec{Name: name, UID: -1, GID: -1}, f}
		if key, err := boundTo(int(f.Fd())); err == nil {
			l.Network, l.Address = key.Network(), key.Addr.String()
		} else if sa, err := unix.Getsockname(int(f.Fd())); err == nil {
			if u, ok := sa.(*unix.SockaddrUnix); ok {
				l.Network, l.Address = "unix", u.Name
			}
		}
		k.own = append(k.own, l)
		return
	}
	if s := adopt(f); s != nil && len(k.kept) < maxSockets {
		s.stored = true
		k.kept = append(k.kept, s)
		k.log.Info("a socket that was kept before upkeep ended is here again", "socket", s.Key.String())
	}
}

// adopt makes a kept socket of a file, if it is one.
func adopt(f *os.File) *kept {
	if f == nil {
		return nil
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	_ = raw.Control(func(n uintptr) { // seen by fd
		if dup, err := unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = dup
		}
	})
	if fd < 0 {
		return nil
	}
	loud(fd)
	inode, err := inodeOf(fd)
	key, ok := serves(fd)
	if err != nil || !ok {
		unix.Close(fd)
		return nil
	}
	return &kept{Key: key, fd: fd, inode: inode, at: -1}
}

// unpolled makes a file of which the poller doesn't know.
func unpolled(f *os.File, name string) *os.File {
	defer f.Close()
	out, err := blocking(f, name)
	if err != nil {
		return nil
	}
	return out
}

// polled makes a file on which waiting needs no thread.
func polled(f *os.File) *os.File {
	if f == nil {
		return nil
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	var out *os.File
	_ = raw.Control(func(n uintptr) { // seen by out
		if dup, err := unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			_ = unix.SetNonblock(dup, true)
			out = os.NewFile(uintptr(dup), "seccomp notify")
		}
	})
	return out
}
