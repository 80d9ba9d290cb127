package metric

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A Sample is the value of one series when it was asked.
type Sample struct {
	Name, Help     string
	Kind           Kind
	Labels, Values []string
	Value          float64 // of a histogram: the sum
	Bounds         []float64
	Counts         []uint64 // cumulative, for each bound and at last for all
}

// A Family describes the series of one name.
type Family struct {
	Name, Help string
	Kind       Kind
	Labels     []string
}

// Families returns what there is, also what has no series yet.
func (r *Registry) Families() (l []Family) {
	for _, f := range r.sorted() {
		l = append(l, Family{f.name, f.help, f.kind, f.labels})
	}
	return l
}

func (r *Registry) sorted() []*family {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.families), func(a, b *family) int { return cmp.Compare(a.name, b.name) })
}

// Samples returns all series, in the order of names and label values.
func (r *Registry) Samples() []Sample {
	var l []Sample
	for _, f := range r.sorted() {
		sample := Sample{Name: f.name, Help: f.help, Kind: f.kind, Labels: f.labels}
		if f.collect != nil {
			if sample.Value = f.collect(); !math.IsNaN(sample.Value) {
				l = append(l, sample)
			}
			continue
		}
		f.mu.Lock()
		all := slices.SortedFunc(maps.Values(f.series), func(a, b *series) int { return slices.Compare(a.values, b.values) })
		f.mu.Unlock()
		for _, s := range all {
			sample.Values, sample.Value, sample.Bounds = s.values, s.value(), f.bounds
			if f.kind == KindHistogram {
				s.mu.Lock()
				sample.Counts, sample.Value = slices.Clone(s.counts), s.value()
				s.mu.Unlock()
				for i := range sample.Counts[1:] {
					sample.Counts[i+1] += sample.Counts[i]
				}
			}
			l = append(l, sample)
		}
	}
	return l
}

// Text returns all series in Prometheus's text format, version 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func (r *Registry) Text() []byte {
	var b bytes.Buffer
	last := ""
	for _, s := range r.Samples() {
		if s.Name != last {
			last = s.Name
			b.WriteString("# HELP " + s.Name + " " + escapeHelp.Replace(s.Help) + "\n# TYPE " + s.Name + " " + string(s.Kind) + "\n")
		}
		if s.Kind != KindHistogram {
			line(&b, s.Name, s.Labels, s.Values, "", s.Value)
			continue
		}
		for i, c := range s.Counts {
			le := math.Inf(1)
			if i < len(s.Bounds) {
				le = s.Bounds[i]
			}
			line(&b, s.Name+"_bucket", s.Labels, s.Values, number(le), float64(c))
		}
		line(&b, s.Name+"_sum", s.Labels, s.Values, "", s.Value)
		line(&b, s.Name+"_count", s.Labels, s.Values, "", float64(s.Counts[len(s.Counts)-1]))
	}
	return b.Bytes()
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func line(b *bytes.Buffer, name string, labels, values []string, le string, v float64) {
	b.WriteString(name)
	sep := "{"
	label := func(name, value string) {
		b.WriteString(sep + name + `="` + escapeLabel.Replace(value) + `"`)
		sep = ","
	}
	for i, l := range labels {
		label(l, values[i])
	}
	if le != "" {
		label("le", le)
	}
	if sep == "," {
		b.WriteByte('}')
	}
	b.WriteString(" " + number(v) + "\n")
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// ServeHTTP serves the text.
func (r *Registry) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	text := r.Text()
	h := w.Header()
	h.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.Write(text)
}
