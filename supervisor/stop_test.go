//go:build unix

package supervisor

import (
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

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
