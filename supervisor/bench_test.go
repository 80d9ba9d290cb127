//go:build unix

package supervisor

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

// switchLimit is what upkeep may add to the service's own start and stop time
// between a click and the new version serving, the binary being at hand.
const switchLimit = 100 * time.Millisecond

// BenchmarkSwitch measures that time, going to and fro between two binaries.
// of-limit has to be below 1.
func BenchmarkSwitch(b *testing.B) {
	bb := newBench(b, "")
	bb.cfg.Health.Probation = config.Duration(10 * time.Millisecond)
	bb.cfg.Health.Interval = config.Duration(10 * time.Millisecond)
	bb.cfg.Updates.Policy = "manual"
	bb.start()
	bb.publish("v1.0.1")
	bb.until("both binaries", func(s Status, v string) bool {
		if s.Plan.Candidate != nil && s.Update == nil {
			_ = bb.engine.Do(b.Context(), Action{Verb: VerbUpdate}) // again until it is accepted
		}
		return v == "v1.0.1" && s.Update == nil
	})
	own := ownTime(b, bb)
	var total time.Duration
	versions := []string{"v1.0.0", "v1.0.1"}
	for n := 0; b.Loop(); n++ {
		to := versions[n%2]
		start := time.Now()
		if err := bb.engine.Do(b.Context(), Action{Verb: VerbUpdate, Version: to, GoVersion: testGo, By: "bench"}); err != nil {
			b.Fatal(err)
		}
		for bb.serves() != to {
			time.Sleep(time.Millisecond)
		}
		total += time.Since(start)
		b.StopTimer()
		bb.until("end", func(s Status, v string) bool { return s.Update == nil })
		b.StartTimer()
	}
	each := total / time.Duration(b.N)
	b.ReportMetric(float64((each-own).Microseconds())/1000, "added-ms/op")
	b.ReportMetric(float64(own.Microseconds())/1000, "service-ms/op")
	b.ReportMetric(float64(each-own)/float64(switchLimit), "of-limit")
}

// ownTime is how long the service takes to stop and to start by itself.
func ownTime(b *testing.B, bb *bench) time.Duration {
	b.Helper()
	const rounds = 5
	var total time.Duration
	addr := freeAddr(b)
	other := &bench{addr: addr}
	for range rounds {
		cmd := exec.Command(bb.place("v1.0.9"))
		cmd.Env = append(os.Environ(), envService+"=all=well", envAddr+"="+addr)
		start := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for other.serves() == "" {
			time.Sleep(time.Millisecond)
		}
		total += time.Since(start)
		start = time.Now()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it ends with 0
		total += time.Since(start)
		_ = os.Remove(cmd.Path)
	}
	return total / rounds
}
