package retain

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/process"
)

// Keeper keeps the sockets of one service. It implements [process.Handover].
type Keeper struct {
	opts Options
	log  *slog.Logger

	mu       sync.Mutex
	kept     []*kept
	own      []*Listener
	runs     []*run
	off      string
	warnings []string
	said     map[string]bool
	early    int  // processes in a row that ended right after their start with a socket unclaimed
	released bool // the service is to end for good
	claim    *time.Timer
	quiet    bool          // nobody answers, between Handoff and Resume
	late     time.Duration // readyTime, except in tests
}

// kept is a duplicate of a socket of the service. It is a bare number: the
// poller must not be woken by the service's connections.
type kept struct {
	Key
	fd      int
	inode   uint64
	pid     int // who bound it or got it
	at      int // its number there
	claimed bool
	given   bool // it was made by an earlier process
	quiet   bool // it has the filter that holds new connections off
	stored  bool
}

// run is the time of one filter: of a process of the service and all that it starts.
type run struct {
	pid      int
	notify   *os.File // nil for a process that doesn't tell
	started  time.Time
	ready    bool
	stopping bool
	had      bool // there were sockets to claim when it started
	loop     chan struct{}
}

var _ process.Handover = (*Keeper)(nil)

// New returns a keeper that has nothing yet.
func New(opts Options) *Keeper {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Claim <= 0 {
		opts.Claim = claimTime
	}
	if opts.Lost == nil {
		opts.Lost = func(string) {}
	}
	return &Keeper{opts: opts, log: opts.Log, said: map[string]bool{}, late: readyTime}
}

// Started takes the descriptor of a new process.
func (k *Keeper) Started(pid int, notify *os.File, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.off = why
	for _, l := range k.own {
		loud(int(l.File.Fd()))
	}
	if notify == nil && why != "" {
		k.once("off: "+why, "the service's sockets are not kept over its restart", "why", why)
	}
	if notify == nil {
		// Nobody would give it what is kept, and its own bind would fail.
		k.drop(func(*kept) string { return LostError })
	}
	r := &run{pid: pid, notify: notify, started: time.Now(), had: len(k.kept) > 0}
	k.runs = append(slices.DeleteFunc(k.runs, func(x *run) bool { return x.notify == nil }), r)
	for _, s := range k.kept {
		s.claimed = false
	}
	if notify != nil {
		k.deadline(k.opts.Claim)
		k.listen(r)
	}
}

// Plain reports whether the next process is to be started without a keeper,
// since the last ones stumbled. It is asked once for each start.
func (k *Keeper) Plain() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.early < 2 {
		return false
	}
	k.early = 0
	k.once("early", "the service ended right after its start twice; it is started plainly, as without handover")
	k.drop(func(*kept) string { return LostEarly })
	return true
}

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
	if give >= 0 {
		s := k.kept[give]
		return true, k.give(r, n, s, pid, at, fd, cloexec)
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
		if option(fd, unix.SO_REUSEPORT) {
			k.warn(fmt.Sprintf("%s is opened with SO_REUSEPORT: of several sockets on one address the first is kept", want))
		}
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
		err = replace(r.notify, n.id, s.fd, at, cloexec)
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

// drop closes the kept sockets for which there is a reason.
func (k *Keeper) drop(why func(*kept) string) {
	k.kept = slices.DeleteFunc(k.kept, func(s *kept) bool {
		reason := why(s)
		if reason == "" {
			return false
		}
		k.log.Info("a socket is no longer kept", "socket", s.Key.String(), "why", reason)
		k.opts.Lost(reason)
		k.close(s)
		return true
	})
}

func (k *Keeper) close(s *kept) {
	loud(s.fd)
	unix.Close(s.fd)
	if s.stored && k.opts.Forget != nil {
		k.opts.Forget(s.storeName())
	}
}

func (s *kept) storeName() string { return fmt.Sprint(StoreName, s.inode) }

// Ready tells that the running process is well: what it hasn't claimed by now
// it hardly will.
func (k *Keeper) Ready() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.early = 0
	for _, r := range k.runs {
		r.ready = true
	}
	k.review()
	k.store()
	if slices.ContainsFunc(k.kept, func(s *kept) bool { return !s.claimed }) {
		k.deadline(k.late)
	}
}

// deadline closes what is unclaimed after a time.
func (k *Keeper) deadline(d time.Duration) {
	if k.claim != nil {
		k.claim.Stop()
	}
	k.claim = time.AfterFunc(d, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.drop(func(s *kept) string {
			if s.claimed {
				return ""
			}
			return LostUnclaimed
		})
	})
}

// review forgets what is neither a listening stream nor a bound datagram
// socket, and what the service has closed while it runs.
func (k *Keeper) review() {
	k.kept = slices.DeleteFunc(k.kept, func(s *kept) bool {
		key, ok := serves(s.fd)
		if ok {
			s.Key = key
			return false
		}
		if s.claimed && s.open() {
			return false // not yet
		}
		k.close(s)
		return true
	})
}

// store puts what is served now where a crash of upkeep doesn't lose it.
func (k *Keeper) store() {
	if k.opts.Store == nil {
		return
	}
	for _, s := range k.kept {
		if _, ok := serves(s.fd); !ok || s.stored {
			continue
		}
		dup, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(dup), s.storeName())
		k.opts.Store(s.storeName(), f)
		f.Close()
		s.stored = true
	}
}

// Stopping holds new connections off, so that the old process has answered
// what it accepted before it hears of its end. The kernel goes on answering
// them; they are accepted by the next process.
func (k *Keeper) Stopping(pid int) {
	k.mu.Lock()
	for _, r := range k.runs {
		if r.pid == pid {
			r.stopping = true
		}
	}
	var held []*kept
	if !k.released {
		k.review()
		for _, s := range append(slices.Clone(k.kept), k.ownKept(pid)...) {
			if !s.Stream || s.Protocol == multipath || !s.open() {
				continue
			}
			if err := quiet(s.fd); err != nil {
				k.warn(fmt.Sprintf("%s: connections that come with the stop signal may be lost: %v", s.Key, err))
				continue
			}
			s.quiet = true
			held = append(held, s)
		}
	}
	k.mu.Unlock()
	if len(held) == 0 {
		return
	}
	k.settle(held)
	go k.release(held)
}

// settle waits until the old process has accepted what was complete before and
// read what was sent to it, and a while longer for what is on its way.
func (k *Keeper) settle(held []*kept) {
	const pace = 10 * time.Millisecond
	start := time.Now()
	for since := start; time.Since(since) < quietTime && time.Since(start) < settleTime; time.Sleep(pace) {
		k.mu.Lock()
		for _, s := range held {
			if !s.quiet {
				continue
			}
			// Where the kernel doesn't tell of unread data, the time has to do.
			if more, _ := unread(s.V6, s.Addr.Port()); more || waiting(s.fd) {
				since = time.Now()
				break
			}
		}
		k.mu.Unlock()
	}
}

// release takes the filters away when the old process has closed its sockets.
func (k *Keeper) release(held []*kept) {
	const pace = 3 * time.Millisecond
	for end := time.Now().Add(holdTime); len(held) > 0; time.Sleep(pace) {
		k.mu.Lock()
		late := time.Now().After(end)
		held = slices.DeleteFunc(held, func(s *kept) bool {
			if !s.quiet {
				return true // the next process has it, or it is closed
			}
			if s.open() && !late {
				return false
			}
			loud(s.fd)
			s.quiet = false
			return true
		})
		k.mu.Unlock()
	}
}

// Ended looks through what is left of a process.
func (k *Keeper) Ended(pid int, x process.Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.review()
	for _, s := range k.kept {
		if s.quiet {
			loud(s.fd)
			s.quiet = false
		}
	}
	k.store()
	for _, r := range k.runs {
		if r.pid == pid && r.had && !r.stopping && !r.ready && x.After < earlyTime {
			k.early++
		}
	}
	if k.claim != nil {
		k.claim.Stop() // the next process gets its own time
	}
	if k.released {
		k.drop(func(*kept) string { return LostUnclaimed })
	}
}

// Release gives up what is kept: the service is to end for good.
func (k *Keeper) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released = true
	for _, s := range k.kept {
		loud(s.fd)
		unix.Close(s.fd)
	}
	// What systemd stores stays there: it gives it up when the unit is stopped,
	// and back when it is restarted.
	k.kept = nil
}

// Abandon closes what is kept: the next process is started without a keeper.
func (k *Keeper) Abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(func(*kept) string { return LostUnclaimed })
}

// Status tells what is kept.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := Status{Off: k.off, Warnings: slices.Clone(k.warnings)}
	for _, l := range k.own {
		st.Sockets = append(st.Sockets, Socket{Name: l.Name, Network: l.Network, Address: l.Address, Claimed: true})
	}
	for _, s := range k.kept {
		if _, ok := serves(s.fd); ok {
			st.Sockets = append(st.Sockets, Socket{Network: s.Network(), Address: s.Addr.String(), Claimed: s.claimed})
		}
	}
	slices.SortFunc(st.Sockets, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Network, b.Network), cmp.Compare(a.Address, b.Address))
	})
	return st
}

// Count returns the number of sockets that are kept.
func (k *Keeper) Count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept) + len(k.own)
}

const maxWarnings = 10

// warn notes a limit that was met, once.
func (k *Keeper) warn(text string) {
	if k.said[text] || len(k.warnings) >= maxWarnings {
		return
	}
	k.said[text] = true
	k.warnings = append(k.warnings, text)
	k.log.Warn(text)
}

func (k *Keeper) once(key, msg string, args ...any) {
	if !k.said[key] {
		k.said[key] = true
		k.log.Warn(msg, args...)
	}
}
