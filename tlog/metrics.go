package tlog

import (
	"errors"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/internal/metric"
)

// clientMetrics are the metrics of one log's client. Its methods work on nil.
type clientMetrics struct {
	size      metric.Gauge
	updates   metric.CounterVec
	forks     metric.Counter
	recovered metric.Counter
	requests  metric.CounterVec
	bytes     metric.Counter
}

func newClientMetrics(reg *metric.Registry, log string) *clientMetrics {
	if reg == nil {
		return nil
	}
	counter := func(name, help string) metric.Counter { return reg.CounterVec(name, help, "log").With(log) }
	results := func(name, help string) metric.CounterVec {
		return reg.CounterVec(name, help, "log", "result").Curry(log)
	}
	m := &clientMetrics{
		size:      reg.GaugeVec("upkeep_tlog_head_size", "Records under the newest accepted tree head.", "log").With(log),
		updates:   results("upkeep_tlog_updates_total", "Tree heads seen, by what came of them."),
		forks:     counter("upkeep_tlog_forks_total", "Tree heads refused because they contradict the accepted one."),
		recovered: counter("upkeep_tlog_state_recovered_total", "Times a damaged state file was replaced by its previous copy or fetched anew."),
		requests:  results("upkeep_tlog_requests_total", "Requests to the log's server."),
		bytes:     counter("upkeep_tlog_received_bytes_total", "Bytes received from the log's server, after decompression."),
	}
	for _, r := range []string{"new", "same", "stale", "shrunk", "fork", "signature", "inconsistent", "error"} {
		m.updates.With(r)
	}
	for _, r := range []string{"ok", "missing", "refused", "error"} {
		m.requests.With(r)
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
	m.requests.With(result).Inc()
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
	m.updates.With(result).Inc()
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
	size    metric.Gauge
	appends metric.Counter
	commits metric.Counter
}

func newLogMetrics(reg *metric.Registry, log string) *logMetrics {
	if reg == nil {
		return nil
	}
	return &logMetrics{
		size:    reg.GaugeVec("upkeep_log_size", "Records under the signed tree head of this program's own log.", "log").With(log),
		appends: reg.CounterVec("upkeep_log_appended_total", "Records appended to this program's own log.", "log").With(log),
		commits: reg.CounterVec("upkeep_log_commits_total", "Tree heads signed; one covers all records that were waiting.", "log").With(log),
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
