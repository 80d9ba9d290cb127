package retain

import (
	"fmt"
	"slices"
	"time"

	"example.org/upkeep/supervisor/process"
)

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
	k.parting = nil
	if !k.released {
		k.review()
		for _, s := range append(slices.Clone(k.kept), k.ownKept(pid)...) {
			if !s.Stream || s.Protocol != plainTCP || !s.open() {
				continue
			}
			if err := quiet(s.fd); err != nil {
				k.note(&k.parting, fmt.Sprintf("%s: connections that come with the stop signal may be lost: %v", s.Key, err))
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
