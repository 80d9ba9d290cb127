package supervisor

import (
	"strings"

	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/schedule"
)

type metrics struct {
	info              metric.GaugeVec
	up                metric.Gauge
	available         metric.GaugeVec
	scheduled         metric.Gauge
	updates           metric.CounterVec
	duration          metric.Histogram
	downtime          metric.Histogram
	probation         metric.Counter
	rollbacks         metric.Counter
	restarts          metric.Counter
	paused            metric.Gauge
	held              metric.Gauge
	stateOK           metric.Gauge
	reloadOK          metric.Gauge
	discoverySuccess  metric.Gauge
	discoveryFailures metric.Counter
	verifications     metric.CounterVec
	logSize           metric.Gauge
	heldBack          metric.GaugeVec
	used              metric.CounterVec
	usedMemory        metric.Gauge
	selfInfo          metric.GaugeVec
	selfAvailable     metric.Gauge
	selfUpdates       metric.CounterVec

	kinds map[string]bool
}

// otherKind is the label of verification failures of an unknown kind.
const otherKind = "other"

func newMetrics(reg *metric.Registry, kinds []string) *metrics {
	gauge := func(name, help string) metric.Gauge { return reg.Gauge("upkeep_"+name, help) }
	counter := func(name, help string) metric.Counter { return reg.Counter("upkeep_"+name, help) }
	m := &metrics{
		info:              reg.GaugeVec("upkeep_service_info", "The running service, as its binary says; always 1.", "module", "version", "go_version"),
		up:                gauge("service_up", "1 while the service's process runs."),
		available:         reg.GaugeVec("upkeep_update_available", "1 when a newer version of the kind is known that may be installed, by itself or by hand.", "kind"),
		scheduled:         gauge("update_scheduled_timestamp_seconds", "When the next update is installed, 0 when none is scheduled."),
		updates:           reg.CounterVec("upkeep_updates_total", "Updates by how they ended.", "result"),
		duration:          reg.Histogram("upkeep_update_duration_seconds", "Time from the start of an update to its end, builds and probation included.", metric.ExponentialBounds(0.1, 4, 8)...),
		downtime:          reg.Histogram("upkeep_update_downtime_seconds", "Time between the end of the old process and the start of the new one.", metric.ExponentialBounds(0.001, 4, 8)...),
		probation:         counter("probation_failures_total", "New versions that failed to start or to prove themselves."),
		rollbacks:         counter("rollbacks_total", "Updates that ended with the previous version."),
		restarts:          counter("service_restarts_total", "Restarts of the service after it ended by itself."),
		paused:            gauge("updates_paused", "1 while no update is installed by itself because somebody paused them."),
		held:              gauge("updates_held", "1 while somebody holds the service at its version."),
		stateOK:           gauge("state_writable", "1 when the last write of the state succeeded."),
		reloadOK:          gauge("config_reload_success", "1 when the configuration on disk was good when it was last read."),
		discoverySuccess:  gauge("discovery_last_success_timestamp_seconds", "When versions were last learned and validated."),
		discoveryFailures: counter("discovery_failures_total", "Rounds of discovery without a validated answer."),
		verifications:     reg.CounterVec("upkeep_verification_failures_total", "Things from the network that failed verification: somebody lies or something is broken.", "kind"),
		logSize:           gauge("log_size", "Size of the log behind the last answer of discovery, in records."),
		heldBack:          reg.GaugeVec("upkeep_update_held", "1 for what keeps the next update from being installed now.", "reason"),
		used:              reg.CounterVec("upkeep_service_cpu_seconds_total", "Processor time of processes of the service that have ended.", "mode"),
		usedMemory:        gauge("service_max_rss_bytes", "Most memory that the service's process that ended last had at a time."),
		selfInfo:          reg.GaugeVec("upkeep_self_info", "The running upkeep; always 1.", "version", "go_version"),
		selfAvailable:     gauge("self_update_available", "1 when a newer version of upkeep itself is known that may be installed, by itself or by hand."),
		selfUpdates:       reg.CounterVec("upkeep_self_updates_total", "Updates of upkeep itself by how they ended, as seen by the version that runs.", "result"),
		kinds:             map[string]bool{otherKind: true},
	}
	m.stateOK.Set(1)
	m.reloadOK.Set(1)
	for _, k := range []string{policy.KindPatch, policy.KindMinor, policy.KindMajor, policy.KindToolchain} {
		m.available.With(k)
	}
	for _, r := range []string{ResultInstalled, ResultRolledBack, ResultRefused, ResultFailed, ResultCancelled, ResultPostponed} {
		m.updates.With(r)
		m.selfUpdates.With(r)
	}
	for _, r := range heldReasons {
		m.heldBack.With(r)
	}
	for _, mode := range []string{"user", "system"} {
		m.used.With(mode)
	}
	for _, k := range append(kinds, otherKind) {
		m.kinds[k] = true
		m.verifications.With(k)
	}
	return m
}

func (m *metrics) service(i Info) {
	m.info.Reset()
	m.info.With(valid(i.Spec.Module), valid(i.Spec.Version), valid(i.Spec.GoVersion)).Set(1)
}

// valid keeps a damaged binary's text from breaking the registry.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }

func (m *metrics) verification(kind string) {
	if !m.kinds[kind] {
		kind = otherKind
	}
	m.verifications.With(kind).Inc()
}

func (m *metrics) result(r Result) {
	switch r.Kind {
	case kindSelfUpdate, kindSelfRollback:
		m.selfUpdates.With(r.Result).Inc()
		return
	case kindUpdate, kindRollback:
	default:
		return
	}
	m.updates.With(r.Result).Inc()
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
		m.available.With(k).Set(number(have[k]))
	}
	if d.Candidate == nil {
		m.scheduled.Set(0)
	}
	m.paused.Set(number(doc.Paused))
	m.held.Set(number(doc.Hold))
}

// heldReasons are the labels of upkeep_update_held.
var heldReasons = []string{"policy", "hold", "pause", "config", "state", "binary", schedule.WaitDelay, schedule.WaitRetry, schedule.WaitWindow, schedule.WaitSpread, "appointment"}

func (m *metrics) holds(reason string) {
	for _, r := range heldReasons {
		m.heldBack.With(r).Set(number(r == reason))
	}
}

// ended counts what a process of the service used.
func (m *metrics) ended(x process.Exit) {
	if x.Rusage == nil {
		return
	}
	m.used.With("user").Add(x.Rusage.User.Seconds())
	m.used.With("system").Add(x.Rusage.System.Seconds())
	m.usedMemory.Set(float64(x.Rusage.MaxRSS))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
