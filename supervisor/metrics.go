package supervisor

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/supervisor/policy"
)

type metrics struct {
	info              *prometheus.GaugeVec
	up                prometheus.Gauge
	available         *prometheus.GaugeVec
	scheduled         prometheus.Gauge
	updates           *prometheus.CounterVec
	duration          prometheus.Histogram
	downtime          prometheus.Histogram
	probation         prometheus.Counter
	rollbacks         prometheus.Counter
	restarts          prometheus.Counter
	paused            prometheus.Gauge
	held              prometheus.Gauge
	stateOK           prometheus.Gauge
	reloadOK          prometheus.Gauge
	discoverySuccess  prometheus.Gauge
	discoveryFailures prometheus.Counter
	verifications     *prometheus.CounterVec
	logSize           prometheus.Gauge

	kinds map[string]bool
}

// otherKind is the label of verification failures of an unknown kind.
const otherKind = "other"

func newMetrics(reg prometheus.Registerer, kinds []string) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "upkeep_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "upkeep_" + name, Help: help})
	}
	m := &metrics{
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "upkeep_service_info",
			Help: "The running service, as its binary says; always 1."}, []string{"module", "version", "go_version"}),
		up: gauge("service_up", "1 while the service's process runs."),
		available: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "upkeep_update_available",
			Help: "1 when a newer version of the kind is known that may be installed, by itself or by hand."}, []string{"kind"}),
		scheduled: gauge("update_scheduled_timestamp_seconds", "When the next update is installed, 0 when none is scheduled."),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_updates_total",
			Help: "Updates by how they ended."}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "upkeep_update_duration_seconds",
			Help: "Time from the start of an update to its end, builds and probation included.", Buckets: prometheus.ExponentialBuckets(0.1, 4, 8)}),
		downtime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "upkeep_update_downtime_seconds",
			Help: "Time between the end of the old process and the start of the new one.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
		probation:         counter("probation_failures_total", "New versions that failed to start or to prove themselves."),
		rollbacks:         counter("rollbacks_total", "Updates that ended with the previous version."),
		restarts:          counter("service_restarts_total", "Restarts of the service after it ended by itself."),
		paused:            gauge("updates_paused", "1 while no update is installed by itself because somebody paused them."),
		held:              gauge("updates_held", "1 while somebody holds the service at its version."),
		stateOK:           gauge("state_writable", "1 when the last write of the state succeeded."),
		reloadOK:          gauge("config_reload_success", "1 when the configuration on disk was good when it was last read."),
		discoverySuccess:  gauge("discovery_last_success_timestamp_seconds", "When versions were last learned and validated."),
		discoveryFailures: counter("discovery_failures_total", "Rounds of discovery without a validated answer."),
		verifications: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_verification_failures_total",
			Help: "Things from the network that failed verification: somebody lies or something is broken."}, []string{"kind"}),
		logSize: gauge("log_size", "Size of the log behind the last answer of discovery, in records."),
		kinds:   map[string]bool{otherKind: true},
	}
	m.stateOK.Set(1)
	m.reloadOK.Set(1)
	for _, k := range []string{policy.KindPatch, policy.KindMinor, policy.KindMajor, policy.KindToolchain} {
		m.available.WithLabelValues(k)
	}
	for _, r := range []string{ResultInstalled, ResultRolledBack, ResultRefused, ResultFailed, ResultCancelled, ResultPostponed} {
		m.updates.WithLabelValues(r)
	}
	for _, k := range append(kinds, otherKind) {
		m.kinds[k] = true
		m.verifications.WithLabelValues(k)
	}
	if reg != nil {
		reg.MustRegister(m.info, m.up, m.available, m.scheduled, m.updates, m.duration, m.downtime, m.probation, m.rollbacks,
			m.restarts, m.paused, m.held, m.stateOK, m.reloadOK, m.discoverySuccess, m.discoveryFailures, m.verifications, m.logSize)
	}
	return m
}

func (m *metrics) service(i Info) {
	m.info.Reset()
	m.info.WithLabelValues(valid(i.Spec.Module), valid(i.Spec.Version), valid(i.Spec.GoVersion)).Set(1)
}

// valid keeps a damaged binary's text from breaking the registry.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }

func (m *metrics) verification(kind string) {
	if !m.kinds[kind] {
		kind = otherKind
	}
	m.verifications.WithLabelValues(kind).Inc()
}

func (m *metrics) result(r Result) {
	if r.Kind != kindUpdate && r.Kind != kindRollback {
		return
	}
	m.updates.WithLabelValues(r.Result).Inc()
	m.duration.Observe(r.Ended.Sub(r.Started).Seconds())
}

func (m *metrics) plan(d policy.Decision, doc document) {
	have := map[string]bool{}
	for _, v := range d.Verdicts {
		if !v.Skipped && v.Retracted == "" {
			have[v.Kind] = true
		}
	}
	for _, k := range []string{policy.KindPatch, policy.KindMinor, policy.KindMajor, policy.KindToolchain} {
		m.available.WithLabelValues(k).Set(number(have[k]))
	}
	if d.Candidate == nil {
		m.scheduled.Set(0)
	}
	m.paused.Set(number(doc.Paused))
	m.held.Set(number(doc.Hold))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
