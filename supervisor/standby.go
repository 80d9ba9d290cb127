package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

// While a new version of upkeep proves itself in command, the one before stands
// by: a second process of its binary, a child of the main one, that holds
// duplicates of all that was handed over. It asks the new version's control
// socket as a trial does. When that stops answering, it kills it; when it ends
// without having said that it wants to, there is nobody to kill. In both cases
// the one that stood by becomes the supervisor, in its own process, and goes on
// with the service, which is no child of its but runs on.

// Keys of the bundle.
const (
	standbyKey = "standby"
	standInKey = "stand-in"
	leaveKey   = "standby/leave"   // from the new version to the one that stands by
	verdictKey = "standby/verdict" // and back

	standbyPidKey = "standby-pid"
)

// What the two tell each other.
const (
	sayStanding = 's' // to the one that started it: it can go
	sayHello    = 'h' // the new version handles signals
	sayBye      = 'b' // it is going to end, as it was told to
	sayGood     = 'g' // it has proven itself
)

// standbyOrder tells the version that stands by what to look after.
type standbyOrder struct {
	Pid    int           `json:"pid"` // of the main process
	Socket string        `json:"socket"`
	To     Pair          `json:"to"`
	Path   string        `json:"path"` // of the service
	API    int           `json:"api"`
	Ready  time.Duration `json:"ready"`
	Wait   time.Duration `json:"wait"`
}

// standIn tells a version that stood by why it supervises.
type standIn struct {
	Reason string `json:"reason"`
	Stop   bool   `json:"stop"`  // it is to stop the service and to end
	Alone  bool   `json:"alone"` // nobody started this process: it gives way to one that is
}

// A Standby is the version before, for the one that it looks after.
type Standby struct {
	leave, verdict *os.File
	once           sync.Once
}

// Arrived takes the version before that stands by, nil when none does, and tells
// it that signals are handled from now on.
func Arrived(b *handoff.Bundle) *Standby {
	s := &Standby{leave: b.Take(leaveKey), verdict: b.Take(verdictKey)}
	if s.leave == nil || s.verdict == nil {
		return nil
	}
	s.say(sayHello)
	var pid int
	if b.Get(standbyPidKey, &pid) && pid > 1 {
		if p, err := os.FindProcess(pid); err == nil {
			go p.Wait() // it is our child
		}
	}
	return s
}

// say tells something; one that has ended needs to know nothing.
func (s *Standby) say(what byte) { _, _ = s.leave.Write([]byte{what}) }

// Leave tells that this version is going to end, as it was told to. It may be
// called again, and on nil.
func (s *Standby) Leave() {
	if s == nil {
		return
	}
	s.once.Do(func() {
		s.say(sayBye)
		s.leave.Close()
	})
}

// proven returns when the version has proven itself: by the word of the one
// that stands by or, without it, when the time is over.
func (s *Standby) proven(ctx context.Context, wait time.Duration) error {
	start := time.Now()
	heard := make(chan byte, 1)
	if s != nil {
		go func() {
			heard <- hear(s.verdict)
			s.verdict.Close()
		}()
	} else {
		heard <- 0
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case b := <-heard:
		if b == sayGood {
			return nil
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait - time.Since(start)):
		return nil
	}
}

// hear returns what the other one says, 0 at its end.
func hear(f *os.File) byte {
	var b [1]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return 0
	}
	return b[0]
}

// StandsBy reports whether this program was started to stand by.
func StandsBy(b *handoff.Bundle) bool {
	var o standbyOrder
	return b.Get(standbyKey, &o) && o.Pid > 0
}

// letGoTime is how long a main process that has closed its end may take to end.
const letGoTime = 3 * time.Second

// StandBy looks after the version that takes this one's place in the main
// process. When that has failed it reports true: this program is the supervisor
// from then on, with the bundle. It reports false when the version has proven
// itself or left, or nothing can be done.
func StandBy(b *handoff.Bundle, sigs *handoff.Signals, end []os.Signal, log *slog.Logger) (bool, error) {
	var o standbyOrder
	if !b.Get(standbyKey, &o) {
		return false, errors.New("standing by: nobody said for whom")
	}
	leave, verdict := b.Take(leaveKey), b.Take(verdictKey)
	if leave == nil || verdict == nil {
		return false, errors.New("standing by: there is no way to the main process")
	}
	defer verdict.Close()
	// Signals are for the main process. One that asks for the end is remembered,
	// for the case that nobody else is there to follow it.
	var asked atomic.Bool
	catching, enough := context.WithCancel(context.Background())
	defer enough()
	caught := make(chan struct{})
	go func() {
		defer close(caught)
		sigs.Each(catching, func(sig os.Signal) {
			if slices.Contains(end, sig) {
				asked.Store(true)
			}
		})
	}()
	w := watched{order: o, gone: make(chan struct{}), bye: make(chan struct{}), client: NewClient(o.Socket)}
	go w.listen(leave)
	if _, err := verdict.Write([]byte{sayStanding}); err != nil {
		return false, fmt.Errorf("standing by: %w", err)
	}
	reason := w.watch()
	if reason == "" {
		_, _ = verdict.Write([]byte{sayGood}) // it goes on either way
		return false, nil
	}
	log.Error("the new upkeep failed; this one goes on", "from", o.To.String(), "why", reason)
	gone := !w.alive()
	lock, err := w.replace(b)
	if err != nil {
		return false, err
	}
	defer lock.Close() // the bundle has a duplicate
	// What arrives from here on is for the supervisor that this program becomes.
	enough()
	<-caught
	// A version that is gone before it handled signals was ended by one.
	s := standIn{Reason: reason, Stop: asked.Load() || gone && !w.hello.Load(), Alone: true}
	return true, errors.Join(b.Add(lockFile, lock), b.Put(standbyKey, standbyOrder{}), b.Put(standInKey, s))
}

// watched is the main process, as the one that stands by sees it.
type watched struct {
	order  standbyOrder
	client *Client
	hello  atomic.Bool
	bye    chan struct{} // closed when it needs nobody any more
	gone   chan struct{} // closed when it has ended and hasn't said so before
}

// alive reports whether the main process is there: we are its child.
func (w *watched) alive() bool { return os.Getppid() == w.order.Pid }

// listen hears what the new version says.
func (w *watched) listen(leave *os.File) {
	defer leave.Close()
	for {
		switch hear(leave) {
		case sayHello:
			w.hello.Store(true)
		case sayBye:
			close(w.bye)
			return
		case 0:
			for deadline := time.Now().Add(letGoTime); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				if !w.alive() {
					close(w.gone)
					return
				}
			}
			// It doesn't know what it was given, and closed it: a version without all this.
			close(w.bye)
			return
		}
	}
}

// watch returns why the new version failed, "" when it didn't.
func (w *watched) watch() string {
	// Until then it can't answer, and its time hasn't begun.
	return observe(context.Background(), observation{
		ended: w.gone, left: w.bye, ready: w.order.Ready, wait: w.order.Wait, probe: w.probe, how: func() string { return "ended" }, when: "in command",
	}).reason
}

func (w *watched) probe(ctx context.Context) error {
	s, err := w.client.Status(ctx)
	o := w.order
	switch {
	case err != nil:
		return err
	case s.Self.Version != o.To.Version || s.Self.GoVersion != o.To.GoVersion:
		return fmt.Errorf("it says that it is %s (%s)", s.Self.Version, s.Self.GoVersion)
	case s.Self.Pid != o.Pid:
		return fmt.Errorf("it says that it is process %d", s.Self.Pid)
	case s.API != o.API:
		return fmt.Errorf("it answers in form %d and not %d", s.API, o.API)
	case s.Service.Path != o.Path:
		return fmt.Errorf("it says that the service is %s", s.Service.Path)
	}
	return nil
}
