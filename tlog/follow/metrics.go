package follow

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/tlog"
)

// metrics of following. Its methods work on nil.
type metrics struct {
	rounds  *prometheus.CounterVec
	success prometheus.Gauge
	drifts  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		return nil
	}
	m := &metrics{
		rounds:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_follow_rounds_total", Help: "Polls of the followed log, by how they ended."}, []string{"result"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_follow_last_success_timestamp_seconds", Help: "When the index last agreed with the log."}),
		drifts:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_follow_clock_difference_seconds", Help: "This machine's clock less the time in the log."}),
	}
	for _, r := range []string{"ok", "fork", "no_data_tiles", "error"} {
		m.rounds.WithLabelValues(r)
	}
	reg.MustRegister(m.rounds, m.success, m.drifts)
	return m
}

func (m *metrics) round(err error) {
	if m == nil {
		return
	}
	var fork *tlog.ForkError
	switch {
	case err == nil:
		m.success.Set(float64(time.Now().Unix()))
		m.rounds.WithLabelValues("ok").Inc()
	case errors.As(err, &fork):
		m.rounds.WithLabelValues("fork").Inc()
	case errors.Is(err, tlog.ErrNoDataTiles):
		m.rounds.WithLabelValues("no_data_tiles").Inc()
	default:
		m.rounds.WithLabelValues("error").Inc()
	}
}

func (m *metrics) drift(d time.Duration) {
	if m != nil {
		m.drifts.Set(d.Seconds())
	}
}
