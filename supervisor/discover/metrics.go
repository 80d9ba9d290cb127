package discover

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are counted with or without a registry.
type metrics struct {
	asks    *prometheus.CounterVec
	events  *prometheus.CounterVec
	bogus   *prometheus.CounterVec
	fresh   *prometheus.GaugeVec
	silent  *prometheus.GaugeVec
	logSize *prometheus.GaugeVec
	rtt     prometheus.Histogram
}

// BogusKinds are all kinds of [BogusError].
var BogusKinds = []string{
	WrongKey, Expired, NotYetValid, MissingSignature, BadSignature, BadDenial, BadWildcard, BadMessage,
	WrongSigner, Algorithm, NotAuthenticated, TooMuchWork,
}

func newMetrics(reg prometheus.Registerer, sources []*source) *metrics {
	m := &metrics{
		asks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upkeep_discovery_asks_total", Help: "Questions for a module, by what came of them."}, []string{"result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upkeep_discovery_events_total", Help: "Events that somebody should look at, by kind."}, []string{"kind"}),
		bogus: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upkeep_discovery_bogus_total", Help: "Answers that failed validation, by kind."}, []string{"kind"}),
		fresh: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upkeep_discovery_stale_since_seconds", Help: "Unix time since when there is no fresh verified answer, 0 when there is one."}, []string{"module"}),
		silent: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upkeep_discovery_silent", Help: "1 when there was no fresh verified answer for longer than max_silence."}, []string{"module"}),
		logSize: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upkeep_discovery_log_size", Help: "Records of the log behind a source's last answer."}, []string{"zone", "source"}),
		rtt: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "upkeep_discovery_seconds", Help: "Time of a source's answer.", Buckets: []float64{.005, .02, .1, .5, 2, 10}}),
	}
	for _, r := range []string{"ok", "not_found", "error", "fallback"} {
		m.asks.WithLabelValues(r)
	}
	for _, k := range EventKinds {
		m.events.WithLabelValues(k)
	}
	for _, k := range BogusKinds {
		m.bogus.WithLabelValues(k)
	}
	for _, s := range sources {
		m.logSize.WithLabelValues(s.zone, s.spec)
	}
	if reg != nil {
		m.asks, m.events, m.bogus = register(reg, m.asks), register(reg, m.events), register(reg, m.bogus)
		m.fresh, m.silent, m.logSize = register(reg, m.fresh), register(reg, m.silent), register(reg, m.logSize)
		m.rtt = register(reg, m.rtt)
	}
	return m
}

// register returns the collector that counts: after a change of the
// configuration that is the one from before.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	var have prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &have) {
		if old, ok := have.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

func (m *metrics) observe(a Answer, err error) {
	result := "ok"
	switch {
	case err != nil && isNotFound(err):
		result = "not_found"
	case err != nil:
		result = "error"
	case a.Fallback:
		result = "fallback"
	}
	m.asks.WithLabelValues(result).Inc()
	for _, e := range a.Events {
		m.events.WithLabelValues(e.Kind).Inc()
	}
	since, silent := 0.0, 0.0
	if !a.Fresh.StaleSince.IsZero() {
		since = float64(a.Fresh.StaleSince.Unix())
	}
	if a.Fresh.Silent {
		silent = 1
	}
	m.fresh.WithLabelValues(a.Module).Set(since)
	m.silent.WithLabelValues(a.Module).Set(silent)
	for _, s := range a.Sources {
		m.rtt.Observe(s.RTT.Seconds())
		if s.Status != nil {
			m.logSize.WithLabelValues(s.Zone, s.Source).Set(float64(s.Status.Size))
		}
		if k := bogusKind(s.Err); k != "" {
			m.bogus.WithLabelValues(k).Inc()
		}
	}
}
