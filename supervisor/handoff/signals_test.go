//go:build unix

package handoff

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// holder is a program that replaces itself again and again until a TERM, upon
// which it ends with status 7.
func holder() {
	var term atomic.Bool
	sigs := Catch([]os.Signal{syscall.SIGTERM}, []os.Signal{syscall.SIGHUP, syscall.SIGUSR1})
	if b, err := Receive(); b == nil && err == nil {
		fmt.Println("ready")
	}
	go sigs.Each(context.Background(), func(sig os.Signal) {
		if sig == syscall.SIGTERM {
			term.Store(true)
		}
	})
	time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
	release := sigs.Hold()
	if term.Load() {
		os.Exit(7)
	}
	exe, err := os.Executable()
	if err == nil {
		err = New().Exec(os.TempDir(), exe, os.Args, os.Environ())
	}
	release()
	fmt.Println(err)
	os.Exit(1)
}

// No TERM is lost, whichever of the programs that follow one another is there:
// it is handled, or ends the process.
func TestHold(t *testing.T) {
	n := 40
	if os.Getenv("UPKEEP_TEST_LONG") != "" {
		n = 2000
	}
	handled := 0
	for range n {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envRole+"=holder")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From then on it handles signals.
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(20000)) * time.Microsecond) // the fault is an instant
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		lost := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // ProcessState tells
		lost.Stop()
		st, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		switch {
		case st.ExitStatus() == 7:
			handled++
		case st.Signal() != syscall.SIGTERM:
			t.Fatalf("it %v; want status 7, or the signal", cmd.ProcessState)
		}
	}
	t.Logf("%d of %d handled", handled, n)
}

// When nothing took over, signals are handled as before.
func TestHoldReleased(t *testing.T) {
	s := Catch([]os.Signal{syscall.SIGUSR2}, nil)
	defer s.Stop()
	got := make(chan os.Signal)
	go s.Each(t.Context(), func(sig os.Signal) { got <- sig })
	s.Hold()()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	<-got
	(*Signals)(nil).Hold()()
}
