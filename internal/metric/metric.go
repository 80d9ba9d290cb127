// Package metric counts things and shows them in Prometheus's text format.
//
// It is what the supervisor's binary has in place of a client library, whose
// dependencies would each be a reason to update every host. Servers show these
// metrics beside their own through [example.org/upkeep/internal/metric/prom].
//
// It trusts its callers for names and help texts and nobody for label values:
// those are escaped, and made valid UTF-8. It keeps one series for each
// combination of label values for good, so values must come from a bounded
// set; see [GaugeVec.Reset].
//
// Files: none.
package metric

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A Kind is what Prometheus calls the type of a metric.
type Kind string

// The kinds of metrics.
const (
	KindCounter   Kind = "counter"
	KindGauge     Kind = "gauge"
	KindHistogram Kind = "histogram"
)

// A Registry holds metrics by name. Asking again for a name gives the metric
// that is there, so that parts of a program can share one, and so that counts
// outlive a change of configuration. The methods of a nil Registry give
// metrics that count and are shown nowhere.
type Registry struct {
	mu       sync.Mutex
	families map[string]*family
}

// New returns an empty registry.
func New() *Registry { return &Registry{families: map[string]*family{}} }

// A family is all series of one name.
type family struct {
	name, help string
	kind       Kind
	labels     []string
	bounds     []float64
	collect    func() float64

	mu     sync.Mutex
	series map[string]*series
}

type series struct {
	values []string
	bits   atomic.Uint64 // of the float64; a histogram's sum

	mu     sync.Mutex
	counts []uint64 // of a histogram, not cumulative; the last one is +Inf
}

func (r *Registry) family(kind Kind, name, help string, labels []string, bounds []float64) *family {
	f := &family{name: name, help: help, kind: kind, labels: labels, bounds: bounds, series: map[string]*series{}}
	if r == nil {
		return f
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.families[name]; old != nil {
		if old.kind != kind || !slices.Equal(old.labels, labels) || !slices.Equal(old.bounds, bounds) {
			panic(fmt.Sprintf("metric: %s is registered already as %s of %q", name, old.kind, old.labels))
		}
		return old
	}
	r.families[name] = f
	return f
}

func (f *family) with(values []string) *series {
	if len(values) != len(f.labels) {
		panic(fmt.Sprintf("metric: %s has the labels %q, not %d values", f.name, f.labels, len(values)))
	}
	valid := make([]string, len(values))
	for i, v := range values {
		valid[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
	key := strings.Join(valid, "\xff") // in no valid text
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.series[key]
	if s == nil {
		s = &series{values: valid}
		if f.kind == KindHistogram {
			s.counts = make([]uint64, len(f.bounds)+1)
		}
		f.series[key] = s
	}
	return s
}

func (s *series) add(v float64) {
	for {
		old := s.bits.Load()
		if s.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

func (s *series) value() float64 { return math.Float64frombits(s.bits.Load()) }

// A Counter only grows.
type Counter struct{ s *series }

// Inc adds one.
func (c Counter) Inc() { c.s.add(1) }

// Add adds v; what is negative or no number is not added.
func (c Counter) Add(v float64) {
	if v > 0 {
		c.s.add(v)
	}
}

// Value returns the count.
func (c Counter) Value() float64 { return c.s.value() }

// A Gauge goes up and down.
type Gauge struct{ s *series }

// Set sets it.
func (g Gauge) Set(v float64) { g.s.bits.Store(math.Float64bits(v)) }

// Add adds v.
func (g Gauge) Add(v float64) { g.s.add(v) }

// Value returns the value.
func (g Gauge) Value() float64 { return g.s.value() }

// A Histogram counts values by size.
type Histogram struct {
	s      *series
	bounds []float64
}

// Observe counts v.
func (h Histogram) Observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.counts[i]++
	h.s.add(v)
}

// Count returns how many values were observed.
func (h Histogram) Count() (n uint64) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for _, c := range h.s.counts {
		n += c
	}
	return n
}

// A CounterVec is counters that differ in their labels.
type CounterVec struct {
	f     *family
	first []string
}

// With returns the counter with these label values.
func (v CounterVec) With(values ...string) Counter {
	return Counter{v.f.with(append(slices.Clip(v.first), values...))}
}

// Curry fixes the first labels.
func (v CounterVec) Curry(values ...string) CounterVec {
	return CounterVec{v.f, append(slices.Clip(v.first), values...)}
}

// A GaugeVec is gauges that differ in their labels.
type GaugeVec struct{ f *family }

// With returns the gauge with these label values.
func (v GaugeVec) With(values ...string) Gauge { return Gauge{v.f.with(values)} }

// Reset removes all its gauges.
func (v GaugeVec) Reset() {
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	clear(v.f.series)
}

// Counter returns a counter without labels.
func (r *Registry) Counter(name, help string) Counter {
	return Counter{r.family(KindCounter, name, help, nil, nil).with(nil)}
}

// CounterVec returns counters with these labels.
func (r *Registry) CounterVec(name, help string, labels ...string) CounterVec {
	return CounterVec{f: r.family(KindCounter, name, help, labels, nil)}
}

// Gauge returns a gauge without labels.
func (r *Registry) Gauge(name, help string) Gauge {
	return Gauge{r.family(KindGauge, name, help, nil, nil).with(nil)}
}

// GaugeVec returns gauges with these labels.
func (r *Registry) GaugeVec(name, help string, labels ...string) GaugeVec {
	return GaugeVec{r.family(KindGauge, name, help, labels, nil)}
}

// Histogram returns a histogram whose buckets end at bounds, which rise.
func (r *Registry) Histogram(name, help string, bounds ...float64) Histogram {
	f := r.family(KindHistogram, name, help, nil, bounds)
	return Histogram{f.with(nil), f.bounds}
}

// Func shows what f returns at the time of asking; no number (NaN) is not shown.
func (r *Registry) Func(kind Kind, name, help string, f func() float64) {
	if fam := r.family(kind, name, help, nil, nil); fam.collect == nil {
		fam.collect = f
	}
}

// ExponentialBounds returns n bounds from start on, each factor times the one before.
func ExponentialBounds(start, factor float64, n int) []float64 {
	b := make([]float64, n)
	for i := range b {
		b[i] = start
		start *= factor
	}
	return b
}
