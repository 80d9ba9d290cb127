package fetch

import (
	"errors"

	"example.org/upkeep/internal/metric"
)

// metrics count what failed verification: any increase needs a person.
type metrics struct{ refused metric.CounterVec }

func newMetrics(reg *metric.Registry) *metrics {
	m := &metrics{reg.CounterVec("upkeep_fetch_refused_total", "Logs, records and binaries that failed verification, by kind.", "kind")}
	for _, k := range VerifyKinds {
		m.refused.With(k)
	}
	return m
}

func (m *metrics) result(err error) {
	var v *VerifyError
	if errors.As(err, &v) {
		m.refused.With(v.Kind).Inc()
	}
}
