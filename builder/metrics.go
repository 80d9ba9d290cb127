package builder

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	reg     prometheus.Registerer
	builds  *prometheus.CounterVec
	alarms  *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		reg: reg,
		builds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_build_results_total",
			Help: "Builds by how they ended."}, []string{"result"}),
		alarms: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_build_alarms_total",
			Help: "Things that must never happen, by kind."}, []string{"kind"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "upkeep_build_seconds",
			Help: "Time of good builds, without waiting.", Buckets: []float64{.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}}),
	}
	for _, s := range []State{StateSuccess, StateFailed, StateTempFailed, "retried"} {
		m.builds.WithLabelValues(string(s))
	}
	for _, k := range alarmKinds {
		m.alarms.WithLabelValues(k)
	}
	return m
}

// observe registers the metrics.
func (m *metrics) observe(s *Service) {
	if m.reg == nil {
		return
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m.reg.MustRegister(m.builds, m.alarms, m.seconds,
		gauge("upkeep_build_queue_length", "Builds that wait.", func() float64 { _, q := s.queue.list(); return float64(len(q)) }),
		gauge("upkeep_build_running", "Builds that run.", func() float64 { b, _ := s.queue.list(); return float64(len(b)) }),
		gauge("upkeep_build_disk_free_bytes", "Free disk space for builds.", func() float64 {
			free, err := diskFree(s.workDir)
			if err != nil {
				return -1
			}
			return float64(free)
		}))
}
