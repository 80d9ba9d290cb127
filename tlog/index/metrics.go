package index

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of an index. Its methods work on nil.
type metrics struct {
	size, skipped prometheus.Gauge
	logTime       prometheus.Gauge
	events        *prometheus.CounterVec
	malformed     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		return nil
	}
	m := &metrics{
		size:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_index_size", Help: "Log records that the answers of the index are based on."}),
		skipped:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_index_skipped_records", Help: "Log records that are not two well-formed lines of one module."}),
		logTime:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_index_log_time_seconds", Help: "Unix time as told by the commit times in the log, 0 if unknown."}),
		events:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_index_security_events_total", Help: "Things seen that an honest log never shows."}, []string{"kind"}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{Name: "upkeep_index_malformed_records_total", Help: "Malformed records skipped by this process."}),
	}
	m.events.WithLabelValues("duplicate")
	reg.MustRegister(m.size, m.skipped, m.logTime, m.events, m.malformed)
	return m
}

func (m *metrics) view(v *view) {
	if m != nil {
		m.size.Set(float64(v.head.Size))
		m.skipped.Set(float64(v.skipped))
	}
}

func (m *metrics) event(kind string) {
	if m != nil {
		m.events.WithLabelValues(kind).Inc()
	}
}

func (m *metrics) skip(n int) {
	if m != nil {
		m.malformed.Add(float64(n))
	}
}

func (m *metrics) time(t int64) {
	if m != nil {
		m.logTime.Set(float64(t))
	}
}
