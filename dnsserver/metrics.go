package dnsserver

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// collector shows a handler's counters to Prometheus. They are kept as plain
// numbers, since the path of a cached answer has no time for more.
type collector struct {
	h *Handler
}

// Metrics returns the collector of the handler's metrics.
func (h *Handler) Metrics() prometheus.Collector { return collector{h} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("upkeep_dns_"+name, help, labels, nil)
}

var (
	descQueries   = desc("queries_total", "Queries answered, by transport.", "transport")
	descTypes     = desc("query_types_total", "Queries answered, by type.", "type")
	descRcodes    = desc("responses_total", "Answers, by response code.", "rcode")
	descDropped   = desc("dropped_packets_total", "Packets that were no queries and got no answer.")
	descHits      = desc("cache_hits_total", "Answers that were taken from the cache.")
	descTruncated = desc("truncated_total", "Answers that only said to ask again over TCP.")
	descSigs      = desc("signatures_total", "Signatures made.")
	descLimited   = desc("rate_limited_total", "Answers dropped or cut because of the rate limit.")
	descOverload  = desc("sign_queue_full_total", "Queries sent to TCP because too many waited for a signature.")
	descConns     = desc("connections", "Connections that are open.")
	descRefused   = desc("connections_refused_total", "Connections, and queries on those of HTTPS and QUIC, refused because of a limit.")
	descLatency   = desc("answer_seconds", "Time from reading a query to having sent its answer.")
	descSize      = desc("log_size", "Records of the log that the index has, which is the zone's serial.")
	descAge       = desc("index_age_seconds", "Time since the index last had word from the log.")
	descStale     = desc("stale", "1 when names of modules are answered SERVFAIL because the index is too old.")
	descKeys      = desc("keys", "Keys of the zone, by what they do now.", "state")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descQueries, descTypes, descRcodes, descDropped, descHits, descTruncated, descSigs,
		descLimited, descOverload, descConns, descRefused, descLatency, descSize, descAge, descStale, descKeys} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.h.stat
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for t := range transports {
		counter(descQueries, s.queries[t].Load(), t.String())
	}
	for i, t := range countedTypes {
		counter(descTypes, s.types[i].Load(), dns.TypeToString[t])
	}
	counter(descTypes, s.types[len(countedTypes)].Load(), "other")
	for i := range s.rcodes {
		if name, ok := dns.RcodeToString[i]; ok && i != dns.RcodeBadSig {
			counter(descRcodes, s.rcodes[i].Load(), name)
		}
	}
	counter(descRcodes, s.rcodes[dns.RcodeBadVers].Load(), "BADVERS")
	counter(descDropped, s.dropped.Load())
	counter(descHits, s.hits.Load())
	counter(descTruncated, s.truncated.Load())
	counter(descSigs, s.sigs.Load())
	counter(descLimited, s.limited.Load())
	counter(descOverload, s.overload.Load())
	gauge(descConns, float64(s.openConns.Load()))
	counter(descRefused, s.refusedConns.Load())
	buckets, total := map[float64]uint64{}, uint64(0)
	for i := range s.latency {
		total += s.latency[i].Load()
		if i < len(latencyBounds) {
			buckets[latencyBounds[i].Seconds()] = total
		}
	}
	ch <- prometheus.MustNewConstHistogram(descLatency, total, time.Duration(s.spent.Load()).Seconds(), buckets)
	gauge(descSize, float64(s.size.Load()))
	age := 0.0
	if at := s.accepted.Load(); s.size.Load() > 0 {
		age = c.h.now().Sub(time.Unix(at, 0)).Seconds()
	}
	gauge(descAge, age)
	stale := 0.0
	if s.stale.Load() {
		stale = 1
	}
	gauge(descStale, stale)
	states := map[string]float64{}
	now := c.h.now()
	for _, k := range c.h.view.Load().zone.keys {
		states[k.State(now)]++
	}
	for _, state := range KeyStates {
		gauge(descKeys, states[state], state)
	}
}
