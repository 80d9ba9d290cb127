package retain

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sort"
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
	warnings []string // of the process that runs
	parting  []string // of the last one's end
	said     map[string]bool
	early    int  // processes in a row that ended right after their start with a socket unclaimed
	released bool // the service is to end for good
	claim    *time.Timer
	quiet    bool                                                              // nobody answers, between Handoff and Resume
	late     time.Duration                                                     // readyTime, except in tests
	replace  func(f *os.File, id uint64, ours, theirs int, cloexec bool) error // replace, except in tests
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
	return &Keeper{opts: opts, log: opts.Log, said: map[string]bool{}, late: readyTime, replace: replace}
}

// Started takes the descriptor of a new process.
func (k *Keeper) Started(pid int, notify *os.File, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.off, k.warnings = why, nil
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
	s.quiet = false
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

// Release gives up what is kept: the service is to end for good.
func (k *Keeper) Release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released = true
	for _, s := range k.kept {
		loud(s.fd)
		s.quiet = false
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
	st := Status{Off: k.off, Warnings: slices.Concat(k.parting, k.warnings)}
	for _, l := range k.own {
		st.Sockets = append(st.Sockets, Socket{Name: l.Name, Network: l.Network, Address: l.Address, Claimed: true})
	}
	for _, s := range k.kept {
		if _, ok := serves(s.fd); ok {
			st.Sockets = append(st.Sockets, Socket{Network: s.Network(), Address: s.Addr.String(), Claimed: s.claimed})
		}
	}
	// Not slices.SortFunc: for each type that is sorted its code is in the binary again, 25 kB.
	sort.Slice(st.Sockets, func(i, j int) bool {
		a, b := st.Sockets[i], st.Sockets[j]
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Network, b.Network), cmp.Compare(a.Address, b.Address)) < 0
	})
	return st
}

// Count returns the number of sockets that are kept.
func (k *Keeper) Count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept) + len(k.own)
}

const (
	maxWarnings = 10
	maxSaid     = 200
)

// warn notes a limit that the service met.
func (k *Keeper) warn(text string) { k.note(&k.warnings, text) }

func (k *Keeper) note(list *[]string, text string) {
	if slices.Contains(*list, text) || len(*list) >= maxWarnings {
		return
	}
	*list = append(*list, text)
	k.once(text, text)
}

// once logs a thing that can happen again and again.
func (k *Keeper) once(key, msg string, args ...any) {
	if k.said[key] {
		return
	}
	if len(k.said) >= maxSaid {
		clear(k.said) // a service that always does something new
	}
	k.said[key] = true
	k.log.Warn(msg, args...)
}
