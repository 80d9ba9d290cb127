package tlog

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/internal/httpget"
)

// clientMetrics are the metrics of one log's client. Its methods work on nil.
type clientMetrics struct {
	size      prometheus.Gauge
	updates   *prometheus.CounterVec
	forks     prometheus.Counter
	recovered prometheus.Counter
	requests  *prometheus.CounterVec
	bytes     prometheus.Counter
}

// register returns the collector that is registered already, if there is one:
// several clients in a process may share a registry.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	var are prometheus.AlreadyRegisteredError
	if errors.As(err, &are) {
		if old, ok := are.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

func newClientMetrics(reg prometheus.Registerer, log string) *clientMetrics {
	if reg == nil {
		return nil
	}
	l := prometheus.Labels{"log": log}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"log"}, labels...)))
	}
	m := &clientMetrics{
		size:      register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "upkeep_tlog_head_size", Help: "Records under the newest accepted tree head."}, []string{"log"})).With(l),
		updates:   counter("upkeep_tlog_updates_total", "Tree heads seen, by what came of them.", "result").MustCurryWith(l),
		forks:     counter("upkeep_tlog_forks_total", "Tree heads refused because they contradict the accepted one.").With(l),
		recovered: counter("upkeep_tlog_state_recovered_total", "Times a damaged state file was replaced by its previous copy or fetched anew.").With(l),
		requests:  counter("upkeep_tlog_requests_total", "Requests to the log's server.", "result").MustCurryWith(l),
		bytes:     counter("upkeep_tlog_received_bytes_total", "Bytes received from the log's server, after decompression.").With(l),
	}
	for _, r := range []string{"new", "same", "stale", "shrunk", "fork", "signature", "inconsistent", "error"} {
		m.updates.WithLabelValues(r)
	}
	for _, r := range []string{"ok", "missing", "refused", "error"} {
		m.requests.WithLabelValues(r)
	}
	return m
}

func (m *clientMetrics) request(err error, n int) {
	if m == nil {
		return
	}
	m.bytes.Add(float64(n))
	result := "ok"
	var se *httpget.StatusError
	switch {
	case err == nil:
	case errors.As(err, &se) && se.NotFound():
		result = "missing"
	case refused(err):
		result = "refused"
	default:
		result = "error"
	}
	m.requests.WithLabelValues(result).Inc()
}

// update counts what came of a tree head.
func (m *clientMetrics) update(err error, advanced bool) {
	if m == nil {
		return
	}
	var fork *ForkError
	result := "same"
	switch {
	case err == nil && advanced:
		result = "new"
	case err == nil:
	case errors.As(err, &fork):
		result = "fork"
		m.forks.Inc()
	case errors.Is(err, ErrShrunk):
		result = "shrunk"
	case errors.Is(err, ErrStale):
		result = "stale"
	case errors.Is(err, ErrSignature):
		result = "signature"
	case errors.Is(err, ErrInconsistent):
		result = "inconsistent"
	default:
		result = "error"
	}
	m.updates.WithLabelValues(result).Inc()
}

func (m *clientMetrics) head(size int64) {
	if m != nil {
		m.size.Set(float64(size))
	}
}

func (m *clientMetrics) recover() {
	if m != nil {
		m.recovered.Inc()
	}
}

// logMetrics are the metrics of a log's write side. Its methods work on nil.
type logMetrics struct {
	size    prometheus.Gauge
	appends prometheus.Counter
	commits prometheus.Counter
}

func newLogMetrics(reg prometheus.Registerer, log string) *logMetrics {
	if reg == nil {
		return nil
	}
	l := prometheus.Labels{"log": log}
	return &logMetrics{
		size:    register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "upkeep_log_size", Help: "Records under the signed tree head of this program's own log."}, []string{"log"})).With(l),
		appends: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_log_appended_total", Help: "Records appended to this program's own log."}, []string{"log"})).With(l),
		commits: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upkeep_log_commits_total", Help: "Tree heads signed; one covers all records that were waiting."}, []string{"log"})).With(l),
	}
}

func (m *logMetrics) head(size int64) {
	if m != nil {
		m.size.Set(float64(size))
	}
}

func (m *logMetrics) appended(n int) {
	if m != nil {
		m.appends.Add(float64(n))
		m.commits.Inc()
	}
}
