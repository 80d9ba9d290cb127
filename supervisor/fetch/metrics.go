package fetch

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what failed verification: any increase needs a person.
type metrics struct{ refused *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "upkeep_fetch_refused_total", Help: "Logs, records and binaries that failed verification, by kind."}, []string{"kind"})}
	for _, k := range VerifyKinds {
		m.refused.WithLabelValues(k)
	}
	if reg != nil {
		var have prometheus.AlreadyRegisteredError
		if err := reg.Register(m.refused); errors.As(err, &have) {
			m.refused = have.ExistingCollector.(*prometheus.CounterVec)
		}
	}
	return m
}

func (m *metrics) result(err error) {
	var v *VerifyError
	if errors.As(err, &v) {
		m.refused.WithLabelValues(v.Kind).Inc()
	}
}
