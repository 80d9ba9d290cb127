package builder

import (
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
)

func TestAhead(t *testing.T) {
	success := func(module, version, rest string) Result {
		sp, err := spec.Parse(module + "@" + version + "/" + rest + "/")
		if err != nil {
			t.Fatal(err)
		}
		return Result{Spec: sp, State: StateSuccess}
	}
	made := success("example.org/a", "v1.0.0", "linux-amd64-go1.26.1")
	made.Ahead = true
	failed := success("example.org/a", "v1.0.0", "linux-amd64-go1.26.1")
	failed.State = StateFailed
	var many []Result
	for i := range 3 * maxAhead {
		many = append(many, success("example.org/a", "v1.0.0", "cmd/"+strings.Repeat("x", i+1)+"/linux-amd64-go1.26.1"))
	}
	a := success("example.org/a", "v1.0.0", "linux-amd64-go1.26.1")
	arm := success("example.org/a", "v1.1.0", "cmd/x/linux-arm64-go1.26.1-stripped")
	for _, tc := range []struct {
		name   string
		recent []Result
		latest string // of example.org/a
		want   []string
		count  int // instead, if there are many
	}{
		{"newer", []Result{a}, "v1.2.0", []string{"example.org/a@v1.2.0/linux-amd64-go1.26.1/"}, 0},
		{"each target, once", []Result{arm, a, success("example.org/a", "v0.9.0", "linux-amd64-go1.26.1")}, "v1.2.0",
			[]string{"example.org/a@v1.2.0/cmd/x/linux-arm64-go1.26.1-stripped/", "example.org/a@v1.2.0/linux-amd64-go1.26.1/"}, 0},
		{"the same", []Result{a}, "v1.0.0", nil, 0},
		{"older", []Result{arm}, "v1.0.5", nil, 0},
		{"not known", []Result{a}, "", nil, 0},
		{"without a tag", []Result{a}, "v1.2.1-0.20260102030405-abcdef012345", nil, 0},
		{"another module", []Result{success("example.org/b", "v1.0.0", "linux-amd64-go1.26.1")}, "v1.2.0", nil, 0},
		{"built ahead itself", []Result{made}, "v1.2.0", nil, 0},
		{"failed", []Result{failed}, "v1.2.0", nil, 0},
		{"many", many, "v1.2.0", nil, maxAhead},
	} {
		var got []string
		for _, sp := range ahead(tc.recent, map[string]string{"example.org/a": tc.latest}) {
			got = append(got, sp.String())
		}
		if tc.count > 0 && len(got) != tc.count || tc.count == 0 && !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
	if got := wanted([]Result{a, made, arm, failed, success("example.org/b", "v1.0.0", "linux-amd64-go1.26.1")}); !slices.Equal(got, []string{"example.org/a", "example.org/b"}) {
		t.Errorf("wanted %q", got)
	}
}

// A newer version of what was asked for is built though nobody asks, once.
func TestBuildAhead(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.publish("example.org/hello", "v1.1.0", strings.Replace(helloSource, "println(dep.Text)", "println(dep.Text, 2)", 1))
	change := func(c *Config) {
		c.Ahead = config.Duration(time.Hour)
		c.Abandon = config.Duration(200 * time.Millisecond) // the service looks at its clocks four times in that
	}
	ts := start(t, e, testOptions{})
	asked, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	ts.stop()
	newer := asked.Spec
	newer.Version = "v1.1.0"
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, change: change})
	until(t, "the newer version is built ahead", func() bool {
		building, queued := ts.queue.list()
		_, ok := ts.log.Find(newer.String())
		return ok && len(building)+len(queued) == 0
	})
	res, err := ts.Result(newer)
	if err != nil || !res.Ahead || res.State != StateSuccess {
		t.Errorf("%+v, %v", res, err)
	}
	want := spec.NewDigest()
	want.Write(e.plainInstall("example.org/hello@v1.1.0", newer.GOOS, newer.GOARCH, "-buildid="))
	if res.Sum != want.Sum() {
		t.Error("other bytes than those of go install")
	}
	// There is nothing else to build, and that from ahead is no reason for more.
	e.publish("example.org/hello", "v1.2.0", helloSource)
	ts.mu.Lock()
	left, recent := len(ts.ahead), slices.Clone(ts.recent)
	ts.mu.Unlock()
	if left != 0 || len(recent) != 2 || ts.log.Head().Size != 2 {
		t.Errorf("%d left, recent %v, %d records", left, recent, ts.log.Head().Size)
	}
	ts.lookAhead(t.Context())
	ts.mu.Lock()
	list := slices.Clone(ts.ahead)
	ts.ahead = nil
	ts.mu.Unlock()
	if len(list) > 1 || len(list) == 1 && list[0].Version != "v1.2.0" {
		t.Errorf("next %v", list)
	}
}
