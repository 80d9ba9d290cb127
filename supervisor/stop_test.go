//go:build unix

package supervisor

import (
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

// What a service that crashed had started is gone before it is started again,
// or upkeep ends.
func TestCrashLeavesNothing(t *testing.T) {
	needLinux(t)
	for _, restart := range []string{"always", "exit"} {
		t.Run(restart, func(t *testing.T) {
			b := newBench(t, "v1.0.0=daemon")
			b.cfg.Process.Restart = restart
			b.start()
			s := b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Running })
			marked := processesOf(t, b.cfg.State)
			if len(marked) != 2 {
				t.Fatalf("processes %v; want the service and its daemon", marked)
			}
			if err := syscall.Kill(s.Service.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if restart == "exit" {
				b.wait()
			} else {
				b.until("restart", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Restarts == 1 })
			}
			if left := alive(marked); len(left) > 0 {
				t.Errorf("processes %v are left of %v", left, marked)
			}
		})
	}
}

// The second stop signal kills the service at once, whatever is under way.
func TestImpatientStop(t *testing.T) {
	for _, tc := range []struct {
		name, behaviour string
		state           State
	}{
		{"outside an update", "v1.0.0=deaf", StateIdle},
		{"while the old version is stopped", "v1.0.0=deaf", StateStopping},
		{"in probation", "v1.0.1=deaf", StateProbation},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, tc.behaviour)
			b.cfg.Process.Grace = config.Duration(5 * time.Minute)
			b.cfg.Health.Probation = config.Duration(5 * time.Minute)
			b.start()
			b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
			if tc.state != StateIdle {
				b.publish("v1.0.1")
				b.until(string(tc.state), func(s Status, v string) bool { return s.Update != nil && s.Update.State == tc.state && v != "" })
			}
			b.cancel()
			b.engine.Kill()
			b.stop() // fails when it takes long
			if v := b.serves(); v != "" {
				t.Errorf("%s is left running", v)
			}
		})
	}
}
