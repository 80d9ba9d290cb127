package metric

import (
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestText(t *testing.T) {
	r := New()
	r.Counter("upkeep_b_total", "B's count.\nTwo lines, a \\.").Add(2.5)
	v := r.CounterVec("upkeep_a_total", "By kind.", "log", "kind")
	v.Curry("x").With("b").Inc()
	v.With("x", "a\"\\\n\xff").Add(3)
	v.With("w", "z").Add(-1)
	r.Gauge("upkeep_g", "G.").Set(math.Inf(1))
	h := r.Histogram("upkeep_h_seconds", "H.", 0.1, 1)
	for _, v := range []float64{0.05, 0.1, 0.2, 5} {
		h.Observe(v)
	}
	r.Func(KindGauge, "upkeep_f", "F.", func() float64 { return 7 })
	r.Func(KindGauge, "upkeep_unknown", "Not known here.", math.NaN)
	want := `# HELP upkeep_a_total By kind.
# TYPE upkeep_a_total counter
upkeep_a_total{log="w",kind="z"} 0
upkeep_a_total{log="x",kind="a\"\\\n` + "\uFFFD" + `"} 3
upkeep_a_total{log="x",kind="b"} 1
# HELP upkeep_b_total B's count.\nTwo lines, a \\.
# TYPE upkeep_b_total counter
upkeep_b_total 2.5
# HELP upkeep_f F.
# TYPE upkeep_f gauge
upkeep_f 7
# HELP upkeep_g G.
# TYPE upkeep_g gauge
upkeep_g +Inf
# HELP upkeep_h_seconds H.
# TYPE upkeep_h_seconds histogram
upkeep_h_seconds_bucket{le="0.1"} 2
upkeep_h_seconds_bucket{le="1"} 3
upkeep_h_seconds_bucket{le="+Inf"} 4
upkeep_h_seconds_sum 5.35
upkeep_h_seconds_count 4
`
	if got := string(r.Text()); got != want {
		t.Errorf("text is\n%s\nwant\n%s", got, want)
	}
}

// The reader of the client library understands the text and finds no fault with it.
func TestRead(t *testing.T) {
	r := New()
	r.Process()
	r.CounterVec("upkeep_things_total", "Things.", "kind").With("odd \"\\\n").Inc()
	r.Histogram("upkeep_wait_seconds", "Waits.", ExponentialBounds(0.1, 4, 3)...).Observe(1)
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(string(r.Text())))
	if err != nil {
		t.Fatal(err)
	}
	if got := families["upkeep_things_total"].Metric[0]; got.Label[0].GetValue() != "odd \"\\\n" || got.Counter.GetValue() != 1 {
		t.Errorf("read back: %v", got)
	}
	if got := families["upkeep_wait_seconds"].Metric[0].Histogram; got.GetSampleCount() != 1 || got.Bucket[2].GetUpperBound() != 1.6 {
		t.Errorf("read back: %v", got)
	}
	if families["go_goroutines"].Metric[0].Gauge.GetValue() < 1 || families["process_start_time_seconds"] == nil {
		t.Error("the process's own metrics are missing")
	}
	problems, err := promlint.New(strings.NewReader(string(r.Text()))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestShared(t *testing.T) {
	r := New()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				r.Counter("c_total", "C.").Inc()
				r.Histogram("h", "H.", 1).Observe(0.5)
				r.Text()
			}
		})
	}
	wg.Wait()
	if c, n := r.Counter("c_total", "C.").Value(), r.Histogram("h", "H.", 1).Count(); c != 8000 || n != 8000 {
		t.Errorf("counted %v and %v of 8000", c, n)
	}
	var none *Registry
	c := none.CounterVec("c_total", "C.", "k")
	if c.With("a").Inc(); c.With("a").Value() != 1 || none.Text() != nil {
		t.Error("a nil registry must count without showing")
	}
	defer func() {
		if recover() == nil {
			t.Error("another kind under the same name must not pass")
		}
	}()
	r.Gauge("c_total", "C.")
}
