package watch

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
)

// metrics of watching. Its methods work on nil.
type metrics struct {
	watched prometheus.Gauge
	polls   *prometheus.CounterVec
	lookups prometheus.Counter
	proven  prometheus.Counter
	success prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		return nil
	}
	m := &metrics{
		watched: prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_watch_modules", Help: "Modules that are watched."}),
		polls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_watch_polls_total", Help: "Polls of watched modules, by how they ended."}, []string{"result"}),
		lookups: prometheus.NewCounter(prometheus.CounterOpts{Name: "upkeep_watch_lookups_total", Help: "Lookups in the checksum database."}),
		proven:  prometheus.NewCounter(prometheus.CounterOpts{Name: "upkeep_watch_versions_total", Help: "Versions proven and stored."}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_watch_last_success_timestamp_seconds", Help: "When a poll last succeeded."}),
	}
	for _, r := range []string{"ok", "missing", "fork", "error"} {
		m.polls.WithLabelValues(r)
	}
	reg.MustRegister(m.watched, m.polls, m.lookups, m.proven, m.success)
	return m
}

func (m *metrics) modules(n int) {
	if m != nil {
		m.watched.Set(float64(n))
	}
}

func (m *metrics) poll(err error) {
	if m == nil {
		return
	}
	var fork *tlog.ForkError
	switch {
	case err == nil:
		m.success.Set(float64(time.Now().Unix()))
		m.polls.WithLabelValues("ok").Inc()
	case errors.As(err, &fork):
		m.polls.WithLabelValues("fork").Inc()
	case errors.Is(err, goproxy.ErrNotFound):
		m.polls.WithLabelValues("missing").Inc()
	default:
		m.polls.WithLabelValues("error").Inc()
	}
}

func (m *metrics) lookup() {
	if m != nil {
		m.lookups.Inc()
	}
}

func (m *metrics) verified() {
	if m != nil {
		m.proven.Inc()
	}
}
