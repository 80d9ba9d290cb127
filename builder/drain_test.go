package builder

import (
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
)

// A build that runs when the server is told to stop may end within its time;
// one that does not is queued at the next start.
func TestDrain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		drain time.Duration
		want  State
	}{
		{"time to end", 24 * time.Hour, StateSuccess},
		{"no time", 0, StateQueued},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newEcosystem(t)
			publishHello(e)
			hold, reached := make(chan struct{}), make(chan struct{})
			var once sync.Once
			e.setBroken(func(p string) int {
				e.hold = nil // read after this, under the same lock
				if strings.HasSuffix(p, "/hello/@v/v1.0.0.zip") {
					e.hold = hold
					once.Do(func() { close(reached) })
				}
				return 0
			})
			ts := start(t, e, testOptions{change: func(c *Config) { c.Drain = config.Duration(tc.drain) }})
			sp, err := spec.Parse("example.org/hello@v1.0.0/" + target() + "/")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ts.queue.add(sp, "192.0.2.0/24"); err != nil {
				t.Fatal(err)
			}
			await(t, "the zip is downloaded", reached)
			stopped := make(chan struct{})
			go func() {
				ts.stop()
				close(stopped)
			}()
			until(t, "the server stops", func() bool {
				ts.queue.mu.Lock()
				defer ts.queue.mu.Unlock()
				return ts.queue.closed
			})
			if tc.drain > 0 {
				close(hold)
			}
			await(t, "the server ends", stopped)
			if tc.drain == 0 {
				close(hold)
			}
			ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, idle: true})
			if res, err := ts.Result(sp); err != nil || res.State != tc.want {
				t.Errorf("at the next start: %+v, %v", res, err)
			}
		})
	}
}

// What was queued before a module was denied is not built after the restart.
func TestQueuedThenDenied(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	sp, err := spec.Parse("example.org/hello@v1.0.0/" + target() + "/")
	if err != nil {
		t.Fatal(err)
	}
	ts := start(t, e, testOptions{idle: true})
	if _, err := ts.queue.add(sp, "192.0.2.0/24"); err != nil {
		t.Fatal(err)
	}
	ts.stop()
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, change: func(c *Config) { c.Deny = []string{"example.org/hello"} }})
	res, err := ts.Watch(t.Context(), sp, "192.0.2.0/24", nil)
	if err != nil || res.State != StateFailed || !strings.Contains(res.Error, "does not build") {
		t.Errorf("%+v, %v", res, err)
	}
	if n := ts.log.Head().Size; n != 0 {
		t.Errorf("%d records", n)
	}
}
