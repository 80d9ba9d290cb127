package metric

import (
	"math"
	"runtime"
	"runtime/metrics"
	"time"
)

var started = time.Now()

// Process adds what Prometheus's client libraries tell of every process and of
// the Go runtime, under the same names, as far as this system tells it.
func (r *Registry) Process() {
	r.GaugeVec("go_info", "Information about the Go environment.", "version").With(runtime.Version()).Set(1)
	runtimeMetric := func(kind Kind, name, help, source string) {
		r.Func(kind, name, help, func() float64 {
			s := []metrics.Sample{{Name: source}}
			metrics.Read(s)
			if s[0].Value.Kind() != metrics.KindUint64 {
				return math.NaN()
			}
			return float64(s[0].Value.Uint64())
		})
	}
	runtimeMetric(KindGauge, "go_goroutines", "Number of goroutines that currently exist.", "/sched/goroutines:goroutines")
	runtimeMetric(KindGauge, "go_memstats_heap_alloc_bytes", "Bytes of live and not yet freed objects.", "/memory/classes/heap/objects:bytes")
	runtimeMetric(KindGauge, "go_memstats_sys_bytes", "Bytes obtained from the system.", "/memory/classes/total:bytes")
	r.Gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.").Set(float64(started.UnixMilli()) / 1000)
	r.Func(KindCounter, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpuSeconds)
	r.Func(KindGauge, "process_resident_memory_bytes", "Resident memory size in bytes.", residentBytes)
	r.Func(KindGauge, "process_open_fds", "Number of open file descriptors.", openFiles)
	r.Func(KindGauge, "process_max_fds", "Maximum number of open file descriptors.", maxFiles)
}
