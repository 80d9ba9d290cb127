package web_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/web/webtest"
)

func TestMain(m *testing.M) { webtest.Main(m) }

// A dashboard is what the tests read of web/dashboard.json.
type dashboard struct {
	Title      string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type string }
	}
}

type panel struct {
	ID          int
	Type        string
	Title       string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Expr, LegendFormat string }
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
		}
	}
	Transformations []struct {
		ID      string
		Options struct{ ExcludeByName map[string]bool }
	}
}

func loadDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// query is an expression with the variables as Grafana fills them in for "All".
func query(expr string) string { return strings.ReplaceAll(expr, "$instance", ".*") }

func TestDashboard(t *testing.T) {
	d := loadDashboard(t)
	var vars []string
	for _, v := range d.Templating.List {
		vars = append(vars, v.Name+" "+v.Type)
	}
	if want := []string{"datasource datasource", "instance query"}; !slices.Equal(vars, want) {
		t.Errorf("variables %v, want %v", vars, want)
	}
	ids, cells := map[int]bool{}, map[string]string{}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: the id is there twice, or there is no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				cell := fmt.Sprint(x, " ", y)
				if other, ok := cells[cell]; ok || x >= 24 {
					t.Fatalf("panel %q lies on %q or outside", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			// A recording rule is how promtool reads an expression.
			fmt.Fprintf(&rules, "      - record: dashboard:panel%d:x\n        expr: %q\n", p.ID, query(target.Expr))
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", "--lint=none", file)
}

// recording has what a Prometheus collected of the three programs during
// "upkeep-demo -check": an update, roll-backs, refused attacks, killed programs.
// Made anew by web/testdata/record.sh.
const recording = "testdata/demo.openmetrics.gz"

// A series is one line of a panel.
type series struct {
	Metric map[string]string
	Value  [2]any   // of an instant query
	Values [][2]any // of a range
}

// A promServer is a running Prometheus.
type promServer struct {
	t   *testing.T
	url string
}

// startPrometheus serves a folder of blocks. It scrapes nothing. A recording has
// no marks where series ended, so a sample counts for three scrapes only.
func startPrometheus(t *testing.T, blocks string) *promServer {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatalf("no prometheus: install the package prometheus: %v", err)
		}
		t.Skipf("no prometheus: install the package prometheus: %v", err)
	}
	conf := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(conf, []byte("scrape_configs: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for try := range 5 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		ln.Close()
		var out bytes.Buffer
		cmd := exec.Command(path, "--config.file="+conf, "--storage.tsdb.path="+blocks, "--storage.tsdb.retention.time=100y", "--query.lookback-delta=6s", "--web.listen-address="+addr)
		cmd.Stderr, cmd.WaitDelay = &out, time.Minute
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // how it ended is in its output
			close(ended)
		}()
		stop := func() {
			_ = cmd.Process.Kill() // it may have ended
			<-ended
		}
		if ready(addr, ended) {
			t.Cleanup(stop)
			return &promServer{t, "http://" + addr}
		}
		stop()
		if try == 4 {
			t.Fatalf("prometheus does not start:\n%s", out.String())
		}
	}
	return nil
}

// patient waits for answers, and not for ever.
var patient = &http.Client{Timeout: 2 * time.Minute}

func ready(addr string, ended <-chan struct{}) bool {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		resp, err := patient.Get("http://" + addr + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-ended:
			return false // another program has the port, for example
		case <-time.After(50 * time.Millisecond): // it tells nobody when it is ready
		}
	}
	return false
}

func (p *promServer) get(path string, args url.Values) []series {
	p.t.Helper()
	resp, err := patient.Get(p.url + "/api/v1/" + path + "?" + args.Encode())
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []series }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("%s %s: %v %s", path, args.Get("query"), err, answer.Error)
	}
	return answer.Data.Result
}

// numbers are the values of a series without NaN and infinities.
func (s series) numbers() (at, v []float64) {
	values := s.Values
	if s.Value[0] != nil {
		values = append(values, s.Value)
	}
	for _, x := range values {
		text, ok := x[1].(string)
		when, ok2 := x[0].(float64)
		f, err := strconv.ParseFloat(text, 64)
		if ok && ok2 && err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			at, v = append(at, when), append(v, f)
		}
	}
	return at, v
}

// shown is a panel with what Prometheus says.
type shown struct {
	panel
	lines []line
}

type line struct {
	name   string
	labels map[string]string
	at, v  []float64
}

// step of range queries, in seconds.
const step = 2

// ask runs all queries of a panel.
func (p *promServer) ask(pan panel, from, to float64) shown {
	p.t.Helper()
	s := shown{panel: pan}
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', 3, 64) }
	for _, target := range pan.Targets {
		var found []series
		if pan.Type == "timeseries" {
			found = p.get("query_range", url.Values{"query": {query(target.Expr)}, "start": {number(from)}, "end": {number(to)}, "step": {strconv.Itoa(step)}})
		} else {
			found = p.get("query", url.Values{"query": {query(target.Expr)}, "time": {number(to)}})
		}
		for _, f := range found {
			at, v := f.numbers()
			if len(v) > 0 {
				s.lines = append(s.lines, line{legend(target.LegendFormat, f.Metric), f.Metric, at, v})
			}
		}
	}
	return s
}

var legendRE = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// legend is a series' name, from its labels.
func legend(format string, labels map[string]string) string {
	return legendRE.ReplaceAllStringFunc(format, func(m string) string { return labels[legendRE.FindStringSubmatch(m)[1]] })
}

// Every panel of the dashboard shows something of what the real programs said,
// each of its queries by itself. The data are a recording; the queries are run
// by a real Prometheus. With UPKEEP_SCREENSHOTS the panels are drawn.
func TestDashboardData(t *testing.T) {
	packed, err := os.Open(recording)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	zr, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	plain, blocks := filepath.Join(dir, "data"), filepath.Join(dir, "blocks")
	if err := os.WriteFile(plain, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "tsdb", "create-blocks-from", "openmetrics", "-q", plain, blocks)
	from, to := span(t, text)
	prom := startPrometheus(t, blocks)
	var panels []shown
	for _, p := range loadDashboard(t).Panels {
		s := prom.ask(p, from, to)
		panels = append(panels, s)
		if p.Type == "row" {
			continue
		}
		for _, target := range p.Targets {
			one := p
			one.Targets = nil
			one.Targets = append(one.Targets, target)
			if len(prom.ask(one, from, to).lines) == 0 {
				t.Errorf("panel %q: no data for %s", p.Title, target.Expr)
			}
		}
		// "or vector(0)" has data always; what is before it has to exist.
		if expr, ok := strings.CutSuffix(p.Targets[0].Expr, " or vector(0)"); ok {
			for _, name := range metricName.FindAllString(expr, -1) {
				if len(prom.get("query", url.Values{"query": {name}, "time": {strconv.FormatFloat(to, 'f', 3, 64)}})) == 0 {
					t.Errorf("panel %q: no data for %s", p.Title, name)
				}
			}
		}
	}
	if os.Getenv("UPKEEP_SCREENSHOTS") != "" {
		picture(t, panels, from, to)
	}
}

// span is the time in which a supervisor ran, with a little before it.
func span(t *testing.T, text []byte) (from, to float64) {
	t.Helper()
	for l := range bytes.Lines(text) {
		f := bytes.Fields(l)
		if len(f) < 3 || !bytes.HasPrefix(l, []byte("upkeep_service_up{")) {
			continue
		}
		at, err := strconv.ParseFloat(string(f[len(f)-1]), 64)
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		if from == 0 || at < from {
			from = at
		}
		to = max(to, at)
	}
	if from == 0 {
		t.Fatal("no supervisor is in the recording")
	}
	return from - 10, to
}
