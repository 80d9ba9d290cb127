// Package prom shows the metrics of package metric among those of
// Prometheus's client library, for programs that use both.
//
// It trusts what it is given. Files: none.
package prom

import (
	"github.com/prometheus/client_golang/prometheus"

	"example.org/upkeep/internal/metric"
)

// Bridge returns a registry whose metrics reg shows. It is nil, which is valid,
// when reg is.
func Bridge(reg prometheus.Registerer) *metric.Registry {
	if reg == nil {
		return nil
	}
	r := metric.New()
	reg.MustRegister(collector{r})
	return r
}

type collector struct{ r *metric.Registry }

// Describe describes nothing: what there is becomes known later.
func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.r.Samples() {
		desc := prometheus.NewDesc(s.Name, s.Help, s.Labels, nil)
		switch s.Kind {
		case metric.KindCounter:
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, s.Value, s.Values...)
		case metric.KindGauge:
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, s.Value, s.Values...)
		case metric.KindHistogram:
			buckets := make(map[float64]uint64, len(s.Bounds))
			for i, b := range s.Bounds {
				buckets[b] = s.Counts[i]
			}
			ch <- prometheus.MustNewConstHistogram(desc, s.Counts[len(s.Counts)-1], s.Value, buckets, s.Values...)
		}
	}
}
