package prom

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestBridge(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	r := Bridge(reg)
	r.CounterVec("upkeep_things_total", "Things.", "kind").With("a").Add(2)
	r.Gauge("upkeep_level", "Level.").Set(-1)
	h := r.Histogram("upkeep_wait_seconds", "Waits.", 1, 2)
	h.Observe(0.5)
	h.Observe(9)
	// The text is the same as without the library.
	if err := testutil.GatherAndCompare(reg, strings.NewReader(string(r.Text()))); err != nil {
		t.Error(err)
	}
	// A second bridge may show other series of the same name.
	Bridge(reg).CounterVec("upkeep_things_total", "Things.", "kind").With("b").Inc()
	if n, err := testutil.GatherAndCount(reg, "upkeep_things_total"); err != nil || n != 2 {
		t.Errorf("%d series, %v; want 2", n, err)
	}
	if Bridge(nil) != nil {
		t.Error("a bridge to nothing must be nil")
	}
}
