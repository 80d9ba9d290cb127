//go:build unix

package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/notify"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/state"
)

// order is what a supervisor in a process of its own is told.
type order struct {
	Config   Config
	Releases []string
	Self     []string // versions of upkeep; the program's name says which one it is
	// The fault: at the write of the state by this number (from 1), do.
	At     int
	Hasty  string // a version of upkeep that doesn't answer on "trial" or in "command" is given up soon
	Passwd string // stands for /etc/passwd
	Do     string // "kill before", "kill between", "kill after", "full" (from then on)
}

// faultDisk lets a write of the state fail, or this process die in it.
type faultDisk struct {
	state.RealDisk
	order  order
	mu     sync.Mutex
	writes int
}

func (d *faultDisk) dies(where string) {
	if d.writes == d.order.At && d.order.Do == where {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (d *faultDisk) Rename(old, new string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasSuffix(new, ".prev") {
		d.writes++ // a save begins with this
		d.dies("kill before")
	}
	if d.order.Do == "full" && d.writes >= d.order.At && d.order.At > 0 {
		return &fs.PathError{Op: "rename", Path: new, Err: syscall.ENOSPC}
	}
	return d.RealDisk.Rename(old, new)
}

func (d *faultDisk) WriteFile(name string, data []byte, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dies("kill between")
	if d.order.Do == "full" && d.writes >= d.order.At && d.order.At > 0 {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	err := d.RealDisk.WriteFile(name, data, perm)
	d.dies("kill after")
	return err
}

// testSupervisor is a supervisor in a process of its own, to be killed.
func testSupervisor(dir string) int {
	data, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		panic(err)
	}
	var o order
	if err := json.Unmarshal(data, &o); err != nil {
		panic(err)
	}
	if o.Passwd != "" {
		usePasswd(o.Passwd)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	b := &bench{dir: dir, self: o.Self}
	b.publish(o.Releases...)
	inherited, err := handoff.Receive()
	if err != nil {
		panic(err)
	}
	trialReady, commandReady, probeTime = time.Minute, time.Minute, 20*time.Second
	switch {
	case o.Hasty == "trial":
		trialReady, probeTime = 2*time.Second, 500*time.Millisecond
	case o.Hasty == "command":
		commandReady = 2 * time.Second
		if StandsBy(inherited) {
			probeTime = 500 * time.Millisecond
		}
	}
	end := []os.Signal{syscall.SIGTERM}
	sigs := handoff.Catch(end, nil)
	if StandsBy(inherited) {
		if supervises, err := StandBy(inherited, sigs, end, log); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 93
		} else if !supervises {
			return 0
		}
	}
	socket, onTrial := OnTrial(inherited)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go sigs.Each(context.Background(), func(os.Signal) { cancel() })
	standby := Arrived(inherited)
	if inherited == nil {
		inherited = Relieve(o.Config.State, log)
	}
	process.Expect(inherited)
	runner := process.NewOS(o.Config.State, log)
	deps := Deps{
		Versions: b, Binaries: b, Inspect: inspectByName, Metrics: metric.New(), Runner: runner, Commands: runner.Command,
		Disk: &faultDisk{order: o}, Log: log, Output: process.NewOutput(io.Discard, io.Discard), Inherited: inherited, Standby: standby, Signals: sigs,
	}
	if len(o.Self) > 0 {
		deps.Successor = OSSuccessor{runner}
		deps.Self = testSelf(dir)
	}
	if up := notify.Up(log); up != nil && len(o.Self) == 0 {
		deps.Received = notify.Inherited()
		deps.StoreFile = func(name string, f *os.File) { up.StoreFile(notify.Named{Name: name, File: f}) }
		deps.ForgetFile = up.RemoveFile
	}
	doors := NewDoors(ctx, inherited, log)
	deps.Handovers = []Handover{doors}
	if len(o.Self) > 0 {
		misbehave(deps.Self.Version, onTrial, &deps)
	}
	e, err := New(o.Config, deps)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 90
	}
	if onTrial {
		alone := Alone(inherited)
		go func() {
			alone(ctx)
			cancel()
		}()
	} else {
		socket = filepath.Join(o.Config.State, "control.sock")
	}
	go func() {
		if !e.WaitStarted(ctx) {
			return
		}
		err := doors.Set([]Door{{
			Name: "control", Addr: socket, Listen: func() (net.Listener, error) { return ListenControl(socket, "") },
			Serve: func(_ context.Context, raw net.Listener) (*http.Server, net.Listener, error) {
				return ControlServer(e, log), raw, nil
			},
		}})
		if err != nil {
			log.Error(err.Error())
		}
		inherited.Close()
		e.TookOver()
	}()
	if onTrial {
		if err := e.RunTrial(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 92
		}
		return 0
	}
	status, err := e.Run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 91
	}
	return status
}

// At every boundary of the journal the supervisor is killed: before the write,
// between the two renames of it, and after it. The next start finds one
// service to run, the old or the new one, and the update succeeds in the end.
func testKillAtEveryBoundary(t *testing.T) {
	needLinux(t)
	for _, do := range []string{"kill before", "kill between", "kill after"} {
		t.Run(do, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				o := newOutside(t, "")
				o.order.Config.Updates.BackoffMin = 0 // the next try comes at once
				o.order.At, o.order.Do = at, do
				o.run()
				select {
				case <-o.done:
				case <-o.quiet():
					// No write has this number any more.
					if at < 9 {
						t.Fatalf("there was no write %d", at)
					}
					o.kill()
					return
				case <-time.After(2 * time.Minute):
					t.Fatalf("neither killed at write %d nor done\n%s", at, o.out.String())
				}
				o.order.At = 0
				o.run()
				s := o.settled(fmt.Sprintf("%s write %d", do, at), func(s Status) bool {
					return s.Service.Version == "v1.0.1" && s.LastResult != nil
				})
				if len(s.Skips) != 0 {
					t.Errorf("%s write %d: one interruption put a version on the skip list: %+v", do, at, s.Skips)
				}
				o.kill()
				if o.t.Failed() {
					return
				}
			}
		})
	}
}

// Killed at random instants, start-up included.
func testKillAtRandom(t *testing.T) {
	needLinux(t)
	t.Parallel()
	n := 5
	if os.Getenv("UPKEEP_TEST_FULL") != "" {
		n = 300
	}
	// Most of the time is spent waiting, so that several are under way at once.
	const lanes = 6
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := lane; i < n && !t.Failed(); i += lanes {
				o := newOutside(t, "")
				o.order.Config.Updates.BackoffMin = 0
				o.run()
				time.Sleep(time.Duration(rand.Int64N(int64(1200 * time.Millisecond)))) // the fault itself is an instant
				o.kill()
				o.run()
				o.settled(fmt.Sprintf("run %d", i), func(s Status) bool { return s.Service.Version == "v1.0.1" })
				o.kill()
			}
		})
	}
	wg.Wait()
}

// Two interruptions of the same update are enough: it may be what brings the
// machine down.
func testKilledTwice(t *testing.T) {
	needLinux(t)
	t.Parallel()
	o := newOutside(t, "")
	o.order.Config.Updates.BackoffMin = 0
	o.order.Config.Health.Probation = config.Duration(time.Minute) // it is killed in it
	for range 2 {
		o.run()
		client := NewClient(filepath.Join(o.order.Config.State, "control.sock"))
		waitFor(t, "probation", func() bool {
			s, err := client.Status(t.Context())
			return err == nil && s.Update != nil && s.Update.State == StateProbation
		})
		o.kill()
	}
	o.run()
	s := o.settled("after two kills", func(s Status) bool { return len(s.Skips) > 0 })
	if s.Service.Version != "v1.0.0" || !strings.Contains(s.Skips[0].Why, "twice") {
		t.Errorf("version %s, skips %+v", s.Service.Version, s.Skips)
	}
}

// A damaged state never keeps the service from starting.
func testDamagedState(t *testing.T) {
	needLinux(t)
	damage := map[string]func(name string) error{
		"empty":     func(name string) error { return os.Truncate(name, 0) },
		"truncated": func(name string) error { return os.Truncate(name, 100) },
		"garbled": func(name string) error {
			return os.WriteFile(name, bytes.Repeat([]byte{0xff, 0, '{'}, 1000), 0o600)
		},
		"one bit": func(name string) error {
			data, err := os.ReadFile(name)
			if err == nil {
				data[len(data)/2] ^= 1
				err = os.WriteFile(name, data, 0o600)
			}
			return err
		},
		"missing":   os.Remove,
		"directory": func(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o700)) },
	}
	for name, f := range damage {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,both=%v", name, both), func(t *testing.T) {
				t.Parallel()
				o := newOutside(t, "")
				o.run()
				o.settled("update", func(s Status) bool { return s.Service.Version == "v1.0.1" })
				o.kill()
				file := filepath.Join(o.order.Config.State, "state")
				if err := f(file); err != nil {
					t.Fatal(err)
				}
				if both {
					if err := f(file + ".prev"); err != nil {
						t.Fatal(err)
					}
				}
				o.run()
				s := o.settled("start with a damaged state", anyStatus)
				if s.Service.Version != "v1.0.1" {
					t.Errorf("%s runs", s.Service.Version)
				}
				lost := both && name != "missing"
				if lost != s.Paused {
					t.Errorf("paused is %v; with the decisions lost nothing may go by itself", s.Paused)
				}
				if name != "missing" && (len(s.Events) == 0 || s.Events[0].Kind != "state_damaged") {
					t.Errorf("nobody is told: %+v", s.Events)
				}
				o.kill()
			})
		}
	}
}

// A disk that is full from any write on never costs the service.
func testDiskFull(t *testing.T) {
	needLinux(t)
	for at := 1; at <= 9; at++ {
		t.Run(fmt.Sprintf("from write %d on", at), func(t *testing.T) {
			t.Parallel()
			o := newOutside(t, "")
			o.order.At, o.order.Do = at, "full"
			o.run()
			o.settled("with a full disk", func(s Status) bool { return s.Self.StateErr != "" && s.Code == CodeFailing })
			o.kill()
			o.order.At = 0
			o.order.Config.Updates.BackoffMin = 0
			o.run()
			o.settled("with space again", func(s Status) bool { return s.Service.Version == "v1.0.1" })
			o.kill()
		})
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("no %s", what)
}
