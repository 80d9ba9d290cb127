//go:build linux

package retain

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/process"
)

// A rig is a service with its keeper.
type rig struct {
	t      *testing.T
	runner *process.OS
	keeper *Keeper
	out    lockedBuffer
	lost   map[string]int
	mu     sync.Mutex
	proc   process.Process
	plain  bool // without a keeper
	env    []string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T, opts Options) *rig {
	t.Helper()
	if err := process.CanTellBinds("/proc/self/exe"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r := &rig{t: t, lost: map[string]int{}}
	log := slog.New(slog.NewTextHandler(&r.out, nil))
	r.runner = process.NewOS(t.TempDir(), log)
	opts.Log = log
	opts.Lost = func(reason string) {
		r.mu.Lock()
		r.lost[reason]++
		r.mu.Unlock()
	}
	r.keeper = New(opts)
	t.Cleanup(func() {
		r.keeper.Release()
		r.stop()
		if t.Failed() {
			t.Log(r.out.String())
		}
	})
	return r
}

// The keeper of a running process can be exchanged.
func (r *rig) Started(pid int, f *os.File, why string) { r.keeper.Started(pid, f, why) }
func (r *rig) Stopping(pid int)                        { r.keeper.Stopping(pid) }
func (r *rig) Ended(pid int, x process.Exit)           { r.keeper.Ended(pid, x) }

func (r *rig) start(words string) {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	s := process.Spec{File: exe, Name: "service", Stop: syscall.SIGTERM, Grace: time.Minute, Output: process.NewOutput(&r.out, &r.out),
		Env: append(os.Environ(), append(r.env, fmt.Sprintf("%s=lifeline=%d %s", envService, os.Getpid(), words))...)}
	if !r.plain && !r.keeper.Plain() {
		s.Handover, s.TellBinds = r, true
	}
	if r.proc, err = r.runner.Start(s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	if r.proc == nil {
		return
	}
	if _, err := r.proc.Stop(context.Background()); err != nil {
		r.t.Error(err)
	}
	r.proc = nil
}

// get asks the service, over a connection of its own, which process it is.
func get(addr, query string) (string, error) {
	hc := http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + addr + "/" + query)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

// up waits until the service answers.
func (r *rig) up(addr string) {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		pid, err := get(addr, "")
		if err == nil && pid == fmt.Sprint(r.proc.Pid()) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("the service does not answer: %v", err)
		}
	}
}

// freeAddr is an address that clients don't connect from, so that none of them
// has the port while the service is away.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// freePort is a port that is free on all addresses, and none that the kernel
// chooses for clients.
func freePort(t *testing.T) (addr, port string) {
	t.Helper()
	for range 1000 {
		port = fmt.Sprint(20000 + rand.IntN(10000))
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			return "127.0.0.1:" + port, port
		}
	}
	t.Fatal("no port is free")
	return "", ""
}

// A client that comes while nothing runs is served by the next process.
func TestRestart(t *testing.T) {
	for _, env := range [][]string{nil, {"GODEBUG=multipathtcp=0"}} {
		r := newRig(t, Options{})
		r.env = env
		addr := freeAddr(t)
		words := "tcp=" + addr + " udp=" + addr
		r.start(words)
		r.up(addr)
		for range 3 {
			r.keeper.Ready()
			r.stop()
			c, err := net.Dial("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			answer := make(chan string)
			go func() {
				s, err := get(addr, "")
				if err != nil {
					s = err.Error()
				}
				answer <- s
			}()
			select {
			case s := <-answer:
				t.Fatalf("nobody runs, and %s answers", s)
			case <-time.After(50 * time.Millisecond):
			}
			r.start("start=100ms " + words)
			if s := <-answer; s != fmt.Sprint(r.proc.Pid()) {
				t.Fatalf("%s answers; want process %d", s, r.proc.Pid())
			}
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
			buf := make([]byte, 10)
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
				t.Errorf("the datagram sent meanwhile: %q, %v", buf[:n], err)
			}
			c.Close()
		}
		if len(r.lost) > 0 {
			t.Errorf("lost: %v", r.lost)
		}
		if st := r.keeper.Status(); st.Off != "" || len(st.Sockets) != 2 || len(st.Warnings) > 0 && os.Getuid() == 0 || !strings.Contains(fmt.Sprint(st.Sockets), addr) {
			t.Errorf("status %+v", st)
		}
	}
}

func dialled(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err == nil {
		c.Close()
	}
	return err
}

func (r *rig) lostFor(reason string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost[reason]
}

// until waits for what happens elsewhere.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waiting in vain until " + what)
		}
	}
}

// A new version that listens elsewhere isn't disturbed by what is kept.
func TestChangedAddress(t *testing.T) {
	r := newRig(t, Options{})
	addr, port := freePort(t)
	r.start("tcp=" + addr)
	r.up(addr)
	r.stop()
	r.start("tcp=:" + port)
	r.up(addr)
	if r.lostFor(LostChanged) != 1 {
		t.Errorf("lost %v", r.lost)
	}
	r.stop()
	r.start("tcp=" + addr)
	r.up(addr)
	if r.lostFor(LostChanged) != 2 {
		t.Errorf("lost %v", r.lost)
	}
}

// What a new version no longer listens on is closed when it is ready, or when
// its time is over.
func TestUnclaimed(t *testing.T) {
	for _, ready := range []bool{true, false} {
		opts := Options{}
		if !ready {
			opts.Claim = time.Second
		}
		r := newRig(t, opts)
		r.keeper.late = 100 * time.Millisecond
		addr, other := freeAddr(t), freeAddr(t)
		r.start("tcp=" + addr + " tcp=" + other)
		r.up(addr)
		r.up(other)
		r.stop()
		if err := dialled(other); err != nil {
			t.Fatalf("between two processes: %v", err)
		}
		r.start("tcp=" + addr)
		r.up(addr)
		if ready {
			r.keeper.Ready()
		}
		until(t, "the unclaimed socket is closed", func() bool { return dialled(other) != nil })
		if err := dialled(addr); err != nil {
			t.Errorf("the claimed socket: %v", err)
		}
		// On a slow machine the time may be over before the first claim.
		if n := r.lostFor(LostUnclaimed); n != 1 && (ready || n == 0) {
			t.Errorf("lost %v", r.lost)
		}
	}
}

// A service that ends twice right after its start is started plainly.
func TestEarlyExit(t *testing.T) {
	r := newRig(t, Options{})
	addr := freeAddr(t)
	r.start("tcp=" + addr)
	r.up(addr)
	r.stop()
	for i := range 2 {
		r.start("exit=3")
		<-r.proc.Done()
		if err := dialled(addr); err != nil {
			t.Fatalf("after the early end number %d: %v", i+1, err)
		}
	}
	if !r.keeper.Plain() {
		t.Fatal("it isn't started plainly")
	}
	if err := dialled(addr); err == nil || r.lostFor(LostEarly) != 1 {
		t.Errorf("the socket is kept; lost %v", r.lost)
	}
	if r.keeper.Plain() {
		t.Error("it is started plainly for ever")
	}
}

// A service may close and open its listener while it runs.
func TestReopen(t *testing.T) {
	r := newRig(t, Options{})
	addr := freeAddr(t)
	r.start("reopen=" + addr)
	r.up(addr)
	if st := r.keeper.Status(); len(st.Sockets) != 1 || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "again while it runs") {
		t.Errorf("status %+v", st)
	}
	r.stop()
	r.start("tcp=" + addr)
	r.up(addr)
}

// An address that somebody else has is refused to the service as ever.
func TestTaken(t *testing.T) {
	r := newRig(t, Options{})
	l, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	r.start("tcp=" + l.Addr().String())
	<-r.proc.Done()
	if x := r.proc.Exit(); x.Code != 4 {
		t.Errorf("the service %v", x)
	}
	until(t, "the service has said why", func() bool { return strings.Contains(r.out.String(), "address already in use") })
	if n := r.keeper.Count(); n != 0 {
		t.Errorf("%d sockets are kept", n)
	}
	l.Close()
	r.start("tcp=" + l.Addr().String())
	r.up(l.Addr().String())
}

// A socket that can't be passed on, as where SELinux forbids it, is given up, and
// the service binds by itself.
func TestNotGiven(t *testing.T) {
	r := newRig(t, Options{})
	addr := freeAddr(t)
	r.start("tcp=" + addr)
	r.up(addr)
	r.stop()
	r.keeper.mu.Lock()
	r.keeper.replace = func(*os.File, uint64, int, int, bool) error { return unix.EACCES }
	r.keeper.mu.Unlock()
	r.start("tcp=" + addr)
	r.up(addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.keeper.Status(); r.lost[LostError] == 0 || len(s.Warnings) == 0 {
		t.Errorf("lost %v, status %+v", r.lost, s)
	}
}

// Without a keeper what was kept must not be in the way.
func TestAbandon(t *testing.T) {
	r := newRig(t, Options{})
	addr := freeAddr(t)
	r.start("tcp=" + addr)
	r.up(addr)
	r.stop()
	r.keeper.Abandon()
	r.plain = true
	r.start("tcp=" + addr)
	r.up(addr)
}

// The keeper of the next upkeep in the same process goes on where this one was.
func TestHandoff(t *testing.T) {
	r := newRig(t, Options{})
	addr := freeAddr(t)
	r.start("tcp=" + addr)
	r.up(addr)
	for range 2 { // the first time nobody takes over
		b := handoff.New()
		if err := r.keeper.Handoff(b); err != nil {
			t.Fatal(err)
		}
		b.Close()
		r.keeper.Resume()
		r.keeper.Resume()
	}
	b := handoff.New()
	if err := r.keeper.Handoff(b); err != nil {
		t.Fatal(err)
	}
	next := New(r.keeper.opts)
	next.Adopt(b)
	if names := b.Names(); len(names) > 0 {
		t.Errorf("nobody took %v", names)
	}
	if a, b := fmt.Sprint(r.keeper.Status()), fmt.Sprint(next.Status()); a != b {
		t.Errorf("status %s; before it was %s", b, a)
	}
	// As if the exec had happened: the old keeper's descriptors are gone.
	before := r.keeper
	before.Release()
	for _, run := range before.runs {
		run.notify.Close()
	}
	r.keeper = next
	r.stop()
	if err := dialled(addr); err != nil {
		t.Errorf("after the process's end: %v", err)
	}
	r.start("tcp=" + addr)
	r.up(addr)
	if len(r.lost) > 0 {
		t.Errorf("lost %v", r.lost)
	}
}

// Sockets that systemd stored are there for the first process after a crash.
func TestStore(t *testing.T) {
	stored := map[string]*os.File{}
	opts := Options{
		Store: func(name string, f *os.File) {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			stored[name] = os.NewFile(uintptr(fd), name)
		},
		Forget: func(name string) {
			stored[name].Close()
			delete(stored, name)
		},
	}
	r := newRig(t, opts)
	addr, other := freeAddr(t), freeAddr(t)
	r.start("tcp=" + addr + " udp=" + addr + " tcp=" + other)
	r.up(addr)
	r.up(other)
	r.keeper.Ready()
	if len(stored) != 3 {
		t.Fatalf("%d sockets are stored; want 3", len(stored))
	}
	// upkeep is killed, and what it runs with it; a connection waits meanwhile.
	r.keeper.Release()
	r.stop()
	answer := make(chan string)
	go func() {
		s, err := get(addr, "")
		if err != nil {
			s = err.Error()
		}
		answer <- s
	}()
	opts = r.keeper.opts
	r.keeper = New(opts)
	for name, f := range stored {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.keeper.Restore(name, os.NewFile(uintptr(fd), name))
	}
	r.start("tcp=" + addr + " udp=" + addr)
	if s := <-answer; s != fmt.Sprint(r.proc.Pid()) {
		t.Errorf("%s answers; want process %d", s, r.proc.Pid())
	}
	r.keeper.Abandon()
	if len(stored) != 0 {
		t.Errorf("%d sockets are stored; want none", len(stored))
	}
}
