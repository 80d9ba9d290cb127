package web_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/source"
	"example.org/upkeep/dnsserver"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/internal/metric/prom"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/follow"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/watch"
)

// A recorder is a registry that also knows the metrics that have no value yet.
type recorder struct {
	*prometheus.Registry
	own   *metric.Registry // of the supervisor, which has no client library
	mu    sync.Mutex
	names map[string]described
}

type described struct{ help, labels string }

var (
	descRE = regexp.MustCompile(`fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	update = flag.Bool("update", false, "write the tables of docs/metrics.md anew")
)

func (r *recorder) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 1000)
	c.Describe(ch)
	close(ch)
	r.mu.Lock()
	for d := range ch {
		m := descRE.FindStringSubmatch(d.String())
		if m == nil {
			panic("a metric's description has another form: " + d.String())
		}
		help, err := strconv.Unquote(m[2])
		if err != nil {
			panic(err)
		}
		r.names[m[1]] = described{help, strings.ReplaceAll(m[4], ",", ", ")}
	}
	r.mu.Unlock()
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// complete adds what is described by nothing but its values.
func (r *recorder) complete(t *testing.T) {
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		var labels []string
		for _, l := range f.Metric[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if _, ok := r.names[f.GetName()]; !ok {
			r.names[f.GetName()] = described{f.GetHelp(), strings.Join(labels, ", ")}
		}
	}
}

func newRecorder() *recorder {
	return &recorder{Registry: prometheus.NewPedanticRegistry(), names: map[string]described{}}
}

// programs makes the metrics of the three programs, by the programs' own
// constructors.
func programs(t *testing.T) map[string]*recorder {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	signer, verifier, err := tlog.GenerateKey("log.example.org")
	must(err)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()

	up := newRecorder()
	shared := prom.Bridge(up)
	up.own = shared
	dc := discover.DefaultConfig()
	dc.Zone, dc.Trust, dc.Sources = "l.upkeep.test.", discover.TrustResolver, []string{"udp://127.0.0.1:1"}
	_, err = discover.New(dc, discover.Options{Metrics: shared, Dir: dir})
	must(err)
	_, err = fetch.New(fetch.Config{Key: verifier, Dir: filepath.Join(dir, "fetch")}, fetch.Options{Metrics: shared})
	must(err)
	sc := supervisor.Defaults()
	sc.State, sc.Service.Path = filepath.Join(dir, "state"), filepath.Join(dir, "service")
	_, err = supervisor.New(sc, supervisor.Deps{Metrics: shared, Kinds: fetch.VerifyKinds})
	must(err)

	for _, f := range shared.Families() {
		up.names[f.Name] = described{f.Help, strings.Join(f.Labels, ", ")}
	}

	build := newRecorder()
	sb, err := sandbox.New(sandbox.Config{None: true})
	must(err)
	proxy, err := goproxy.New("http://127.0.0.1:1", http.DefaultClient)
	must(err)
	db, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: "http://127.0.0.1:1", Dir: filepath.Join(dir, "sumdb"), HTTP: http.DefaultClient, Metrics: prom.Bridge(build)})
	must(err)
	svc, err := builder.New(builder.Options{Config: builder.DefaultConfig(), Dir: filepath.Join(dir, "build"), SignerKey: signer, Sandbox: sb,
		Source: &source.Source{Proxy: proxy, DB: db}, Metrics: build})
	must(err)
	t.Cleanup(func() { must(svc.Close()) })

	dns := newRecorder()
	store, err := index.Open(filepath.Join(dir, "index"), index.Options{Metrics: dns})
	must(err)
	t.Cleanup(func() { must(store.Close()) })
	zc := dnsserver.DefaultZoneConfig()
	zc.Zone = "l.upkeep.test."
	zc.NameServers = []dnsserver.NameServer{{Name: "ns.example.org."}}
	key, err := dnsserver.GenerateKey(dir, zc.Zone, "ECDSAP256SHA256", true, dnsserver.Timing{})
	must(err)
	h, err := dnsserver.NewHandler(zc, []*dnsserver.Key{key}, store, dnsserver.Options{})
	must(err)
	dns.MustRegister(h.Metrics())
	client, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: "http://127.0.0.1:1", Dir: filepath.Join(dir, "follow"), HTTP: http.DefaultClient, Metrics: prom.Bridge(dns)})
	must(err)
	_ = follow.Run(stopped, follow.Config{Log: client, Store: store, Interval: time.Hour, Metrics: dns})                                                 // ends at once
	_ = watch.Run(stopped, watch.Config{Modules: []string{"example.org/m"}, Interval: time.Hour, Proxy: proxy, Log: client, Store: store, Metrics: dns}) // ends at once

	build.complete(t)
	dns.complete(t)
	return map[string]*recorder{"upkeep": up, "upkeep-build": build, "upkeep-dns": dns}
}

// promtool runs Prometheus' own checker.
func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatalf("no promtool: install the package prometheus: %v", err)
		}
		t.Skipf("no promtool: install the package prometheus: %v", err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil || len(args) > 1 && args[1] == "metrics" && len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Every metric is named and described by Prometheus' conventions, and belongs
// to upkeep.
func TestMetricsLint(t *testing.T) {
	for program, reg := range programs(t) {
		families, err := reg.Gather()
		if err != nil {
			t.Errorf("%s: %v", program, err)
			continue
		}
		var text bytes.Buffer
		enc := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "upkeep_") {
				t.Errorf("%s: %s has no prefix upkeep_", program, f.GetName())
			}
			if !strings.HasSuffix(f.GetHelp(), ".") {
				t.Errorf("%s: the help of %s is no sentence: %q", program, f.GetName(), f.GetHelp())
			}
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if strings.Contains(l.GetName(), "version") && !strings.HasSuffix(f.GetName(), "_info") {
						t.Errorf("%s: %s has the label %s, which belongs to _info metrics only", program, f.GetName(), l.GetName())
					}
				}
			}
			if err := enc.Encode(f); err != nil {
				t.Fatal(err)
			}
		}
		if len(families) < 10 {
			t.Errorf("%s has only %d metrics", program, len(families))
		}
		t.Run(program, func(t *testing.T) { promtool(t, text.Bytes(), "check", "metrics") })
	}
}

// What the supervisor itself writes, without a client library, is what
// Prometheus' checker and its parser take, with the process' own metrics.
func TestMetricsText(t *testing.T) {
	reg := programs(t)["upkeep"].own
	reg.Process()
	w := httptest.NewRecorder()
	reg.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Errorf("content type %q", kind)
	}
	promtool(t, w.Body.Bytes(), "check", "metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range reg.Families() {
		if families[f.Name] == nil && len(f.Labels) == 0 {
			t.Errorf("%s is not in the text", f.Name)
		}
	}
	if families["process_start_time_seconds"] == nil || families["go_info"] == nil {
		t.Error("the process' own metrics are not in the text")
	}
}

// metricName finds names of ours in expressions and prose.
var metricName = regexp.MustCompile(`\bupkeep_[a-z0-9_]+\b`)

// Every metric that the rules, the dashboard and the docs name exists.
func TestMetricsExist(t *testing.T) {
	exist := map[string]bool{}
	for _, reg := range programs(t) {
		for name := range reg.names {
			exist[name] = true
		}
	}
	for _, file := range []string{"alerts.yml", "testdata/alerts_test.yml", "testdata/alerts_days_test.yml", "dashboard.json", "../docs/metrics.md"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := metricName.FindAllString(string(data), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			found := exist[name]
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(name, suffix); ok && exist[base] {
					found = true
				}
			}
			if !found {
				t.Errorf("%s names %s, which does not exist", file, name)
			}
		}
	}
}

// The tables in the docs are what the programs say of their metrics.
func TestMetricsDocs(t *testing.T) {
	const file = "../docs/metrics.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for program, reg := range programs(t) {
		var table strings.Builder
		table.WriteString("| metric | labels | meaning |\n|---|---|---|\n")
		for _, name := range slices.Sorted(maps.Keys(reg.names)) {
			m := reg.names[name]
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", name, m.labels, m.help)
		}
		begin, end := "<!-- metrics of "+program+" -->\n", "<!-- end -->"
		head, rest, ok := strings.Cut(text, begin)
		old, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no table between %q and %q", file, begin, end)
		}
		if old != table.String() && !*update {
			t.Errorf("%s is not up to date for %s; run: go test ./web -run TestMetricsDocs -update", file, program)
		}
		text = head + begin + table.String() + end + tail
	}
	if *update && text != string(data) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Every rule has what a person who is woken needs, and the runbook it points
// at has a section about it.
func TestAlertsAreComplete(t *testing.T) {
	data, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := strings.Split(string(data), "\n      - alert: ")[1:]
	if len(rules) < 15 {
		t.Errorf("only %d rules", len(rules))
	}
	for _, rule := range rules {
		name, _, _ := strings.Cut(rule, "\n")
		for _, want := range []string{"expr: ", "severity: ", "summary: ", "description: ", "runbook_url: https://example.org/upkeep/docs/metrics.md#" + strings.ToLower(name) + "\n"} {
			if !strings.Contains(rule+"\n", want) {
				t.Errorf("%s has no %q", name, want)
			}
		}
		if !strings.Contains(string(docs), "\n### "+name+"\n") {
			t.Errorf("docs/metrics.md has no section %s", name)
		}
	}
}

func TestAlerts(t *testing.T) {
	t.Run("syntax", func(t *testing.T) { promtool(t, nil, "check", "rules", "alerts.yml") })
	t.Run("minutes", func(t *testing.T) { promtool(t, nil, "test", "rules", "testdata/alerts_test.yml") })
	t.Run("days", func(t *testing.T) { promtool(t, nil, "test", "rules", "testdata/alerts_days_test.yml") })
	// Each rule is in the tests.
	data, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	for _, file := range []string{"testdata/alerts_test.yml", "testdata/alerts_days_test.yml"} {
		part, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, part...)
	}
	fires := regexp.MustCompile(`alertname: (\w+)\n\s+exp_alerts:`)
	var fired []string
	for _, m := range fires.FindAllSubmatch(tests, -1) {
		fired = append(fired, string(m[1]))
	}
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(data, -1) {
		if name := string(m[1]); !slices.Contains(fired, name) {
			t.Errorf("no test sees %s fire", name)
		}
	}
}
