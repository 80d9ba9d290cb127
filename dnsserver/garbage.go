package dnsserver

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Of what is in use, so much garbage may gather before it is collected: a share
// that trades a little CPU time on the way of new answers, none for those from the
// cache, for memory. With little in use it may be more, with much in use less.
const (
	garbagePercent = 30
	leastGarbage   = 16 << 20
	mostGarbage    = 96 << 20
	mostPercent    = 100 // what is in use can grow before it is looked at again
)

// gcPercent returns the setting for so many bytes in use.
func gcPercent(live uint64) int {
	room := min(max(live*garbagePercent/100, leastGarbage), mostGarbage)
	return int(min(room*100/max(live, 1), mostPercent))
}

// TuneGC sets how often the process collects garbage, as what is in use grows and
// shrinks, until ctx ends. With GOGC in the environment it does nothing.
func TuneGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	last := garbagePercent // while all is loaded
	debug.SetGCPercent(last)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		if now := gcPercent(live[0].Value.Uint64()); now < last*9/10 || now > last*11/10 {
			debug.SetGCPercent(now)
			last = now
		}
	}
}
