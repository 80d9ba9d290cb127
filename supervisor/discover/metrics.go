package discover

import (
	"example.org/upkeep/internal/metric"
)

// metrics are counted with or without a registry.
type metrics struct {
	asks    metric.CounterVec
	events  metric.CounterVec
	bogus   metric.CounterVec
	fresh   metric.GaugeVec
	silent  metric.GaugeVec
	logSize metric.GaugeVec
	good    metric.GaugeVec
	rtt     metric.Histogram
}

// BogusKinds are all kinds of [BogusError].
var BogusKinds = []string{
	WrongKey, Expired, NotYetValid, MissingSignature, BadSignature, BadDenial, BadWildcard, BadMessage,
	WrongSigner, Algorithm, NotAuthenticated, TooMuchWork,
}

func newMetrics(reg *metric.Registry, sources []*source) *metrics {
	m := &metrics{
		asks:    reg.CounterVec("upkeep_discovery_asks_total", "Questions for a module, by what came of them.", "result"),
		events:  reg.CounterVec("upkeep_discovery_events_total", "Events that somebody should look at, by kind.", "kind"),
		bogus:   reg.CounterVec("upkeep_discovery_bogus_total", "Answers that failed validation, by kind.", "kind"),
		fresh:   reg.GaugeVec("upkeep_discovery_stale_since_seconds", "Unix time since when there is no fresh verified answer, 0 when there is one.", "module"),
		silent:  reg.GaugeVec("upkeep_discovery_silent", "1 when there was no fresh verified answer for longer than max_silence.", "module"),
		logSize: reg.GaugeVec("upkeep_discovery_log_size", "Records of the log behind a source's last answer.", "zone", "source"),
		good:    reg.GaugeVec("upkeep_discovery_source_last_success_timestamp_seconds", "When a source last gave a fresh answer that was validated, 0 when it never did.", "zone", "source"),
		rtt:     reg.Histogram("upkeep_discovery_seconds", "Time of a source's answer.", .005, .02, .1, .5, 2, 10),
	}
	for _, r := range []string{"ok", "not_found", "error", "fallback"} {
		m.asks.With(r)
	}
	for _, k := range EventKinds {
		m.events.With(k)
	}
	for _, k := range BogusKinds {
		m.bogus.With(k)
	}
	for _, s := range sources {
		m.logSize.With(s.zone, s.spec)
		m.good.With(s.zone, s.spec)
	}
	return m
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
	m.asks.With(result).Inc()
	for _, e := range a.Events {
		m.events.With(e.Kind).Inc()
	}
	since, silent := 0.0, 0.0
	if !a.Fresh.StaleSince.IsZero() {
		since = float64(a.Fresh.StaleSince.Unix())
	}
	if a.Fresh.Silent {
		silent = 1
	}
	m.fresh.With(a.Module).Set(since)
	m.silent.With(a.Module).Set(silent)
	for _, s := range a.Sources {
		m.rtt.Observe(s.RTT.Seconds())
		if s.Status != nil {
			m.logSize.With(s.Zone, s.Source).Set(float64(s.Status.Size))
		}
		if (s.Err == nil || isNotFound(s.Err)) && s.Stale == "" {
			m.good.With(s.Zone, s.Source).Set(float64(a.Asked.Unix()))
		}
		if k := bogusKind(s.Err); k != "" {
			m.bogus.With(k).Inc()
		}
	}
}
