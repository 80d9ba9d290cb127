package builder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/modfile"

	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

func TestOrder(t *testing.T) {
	now := time.Unix(1000, 0)
	later := now.Add(time.Minute)
	for _, tc := range []struct {
		name string
		jobs []waiting
		last map[string]int64
		want []int
	}{
		{"none", nil, nil, []int{}},
		{"arrival", []waiting{{"a", 2, time.Time{}}, {"a", 1, time.Time{}}}, nil, []int{1, 0}},
		{"turns", []waiting{{"a", 1, time.Time{}}, {"a", 2, time.Time{}}, {"a", 3, time.Time{}}, {"b", 4, time.Time{}}, {"b", 5, time.Time{}}}, nil, []int{0, 3, 1, 4, 2}},
		{"last turn", []waiting{{"a", 1, time.Time{}}, {"b", 2, time.Time{}}}, map[string]int64{"a": 7, "b": 3}, []int{1, 0}},
		{"new client", []waiting{{"a", 1, time.Time{}}, {"c", 2, time.Time{}}}, map[string]int64{"a": 7}, []int{1, 0}},
		{"must wait", []waiting{{"a", 1, later}, {"a", 2, time.Time{}}, {"b", 3, now.Add(time.Second)}}, nil, []int{1, 2, 0}},
		{"waited", []waiting{{"a", 1, now}, {"a", 2, time.Time{}}}, nil, []int{0, 1}},
	} {
		if got := order(tc.jobs, tc.last, now); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestClassify(t *testing.T) {
	exit := &sandbox.ExitError{Code: 1}
	const perm, none, passing, temp = "permanent", "not found", "not found now", "temporary"
	for _, tc := range []struct {
		output, want, text string
		err                error
	}{
		{"package example.org/x is not a main package", none, "not a command", exit},
		{"go: example.org/x@v1.0.0: module example.org/x@v1.0.0 found, but does not contain package example.org/x/y", none, "There is no package example.org/x/y in example.org/x@v1.0.0.", exit},
		{"go: example.org/x@v1.0.0 (in example.org/x@v1.0.0):\n\tThe go.mod file for the module providing named packages contains one or more\n\treplace directives.", none, "replace", exit},
		{"\tThe go.mod file contains one or more replace directives. It must not", none, "replace", exit},
		{"go: example.org/x@v1.0.0: example.org/x@v1.0.0 requires go >= 1.30 (running go 1.26.8; GOTOOLCHAIN=local)", none, "needs Go 1.30 or later; the build was asked for with Go 1.26.8.", exit},
		{"package example.org/x\n\timports runtime/cgo: build constraints exclude all Go files in /goroot/src/runtime/cgo", none, "Package cgo has no Go files for this target without cgo.", exit},
		{"loadinternal: ios/arm64 requires external (cgo) linking, but cgo is not enabled", none, "without cgo", exit},
		{"# example.org/x\n../mod/example.org/x@v1.0.0/main.go:3:5: undefined: y", perm, "The source does not compile: ../mod/example.org/x@v1.0.0/main.go:3:5: undefined: y", exit},
		{"verifying example.org/x@v1.0.0: checksum mismatch\n\tdownloaded: h1:a\n\nSECURITY ERROR\nThis download does NOT match", temp, "served something else", exit},
		{"go: example.org/x@v1.0.0: reading PROXY/example.org/x/@v/v1.0.0.info: 500 Internal Server Error", temp, "may pass", exit},
		{"go: example.org/x@v1.0.0: Get \"PROXY/\": dial tcp 127.0.0.1:1: connect: connection refused", temp, "may pass", exit},
		{"go: example.org/y@v1.0.0: verifying go.mod: example.org/y@v1.0.0: reading PROXY/sumdb/sum.test/lookup/example.org/y@v1.0.0: 503 Service Unavailable", temp, "may pass", exit},
		{"go: example.org/y@v1.0.0: verifying module: example.org/y@v1.0.0: reading PROXY/sumdb/sum.test/lookup/example.org/y@v1.0.0: 404 Not Found", temp, "does not know a dependency", exit},
		{"go: example.org/y@v1.0.0: verifying module: example.org/y@v1.0.0: note has no verifiable signatures", temp, "could not be verified", exit},
		{"../mod/example.org/x@v1.0.0/main.go:3:8: example.org/y@v1.0.0: Get \"PROXY/example.org/y/@v/v1.0.0.zip\": EOF", temp, "may pass", exit},
		{"main.go:3:5: undefined: y\nwrite /std/x: no space left on device", temp, "may pass", exit},
		{"compile: signal: killed\nmain.go:3:5: undefined: y", temp, "more memory than it could have", exit},
		{"go: example.org/y@v1.0.0: reading PROXY/example.org/y/@v/v1.0.0.mod: 404 Not Found", passing, "example.org/y@v1.0.0 is not known to the module proxy.", exit},
		{"/mod/example.org/x@v1.0.0/main.go:3:8: example.org/y@v1.0.0: reading PROXY/example.org/y/@v/v1.0.0.zip: 404 Not Found", passing, "example.org/y@v1.0.0 is not known to the module proxy.", exit},
		{"/mod/example.org/x@v1.0.0/main.go:3:8: reading PROXY/example.org/y/@v/v1.0.0.zip: 403 Forbidden\n\tserver response: no", temp, "answer can't be used", exit},
		{"/mod/example.org/x@v1.0.0/main.go:3:8: zip: not a valid zip file", temp, "answer can't be used", exit},
		{"/mod/example.org/x@v1.0.0/main.go:3:8: zip for example.org/y@v1.0.0 has unexpected file z", temp, "answer can't be used", exit},
		{"go: example.org/x@v1.0.0: example.org/x@v1.0.0: invalid response from proxy \"PROXY\": invalid character '<' looking for beginning of value", temp, "answer can't be used", exit},
		{"package example.org/x: no non-test Go files in /mod/example.org/x@v1.0.0", none, "has no Go files", exit},
		{"-> unzip /mod/cache/download/example.org/x/@v/v1.0.0.zip: example.org/x@v1.0.0/a'b: malformed file path \"a'b\": invalid char '\\''", perm, "The zip of a module can't be unpacked: example.org/x@v1.0.0/a'b: malformed", exit},
		{"go: example.org/x@v1.0.0: unzip /mod/cache/download/example.org/x/@v/v1.0.0.zip: example.org/x@v1.0.0/A.go: case-insensitive file name collision: \"a.go\" and \"A.go\"", perm, "can't be unpacked", exit},
		{"-> unzip /mod/cache/download/example.org/x/@v/v1.0.0.zip: open /mod/example.org/x@v1.0.0/a: permission denied", temp, "permission denied", exit},
		{"# example.org/x\nruntime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow\n\nruntime stack:\n\truntime/panic.go:1 +0x1", perm, "ran out of stack", exit},
		{"# example.org/x\nloadelf: $WORK/b001/_pkg_.a(x.syso): 66733: sym#2: ignoring symbol", perm, "does not link: loadelf: ", exit},
		{"# example.org/x\npanic: something\n\ngoroutine 1 [running]:\nruntime/mgc.go:1695 +0x105", temp, "The build failed: panic: something", exit},
		{"something never seen", temp, "something never seen", exit},
		{"", temp, "", exit},
		{"main.go:3:5: undefined: y", temp, "more memory", fmt.Errorf("%w (%w)", sandbox.ErrMemory, exit)},
		{"main.go:3:5: undefined: y", temp, "longer", sandbox.ErrTimeout},
		{"package example.org/dash/-o: invalid input directory name \"-o\"", perm, "invalid input directory name", exit},
		{"main.go:3:5: undefined: y", temp, "disk space", errWorkFull},
		{"main.go:3:5: undefined: y", temp, "killed", &sandbox.ExitError{Code: -1, Signal: "killed"}},
		{"main.go:3:5: undefined: y", temp, "could not run", errors.New("fork failed")},
	} {
		f := classify(tc.output, tc.err, true)
		got := temp
		switch {
		case f.Permanent && f.NotFound:
			got = none
		case f.Permanent:
			got = perm
		case f.NotFound:
			got = passing
		}
		var alarm *alarmError
		if want := strings.Contains(tc.text, "served something else") || strings.Contains(tc.text, "not be verified"); errors.As(f, &alarm) != want {
			t.Errorf("%q: alarm %v", tc.output, !want)
		}
		if got != tc.want || !strings.Contains(f.Text, tc.text) || strings.ContainsAny(f.Text, "\n\x00") {
			t.Errorf("%q, %v: %s %q, want %s %q", tc.output, tc.err, got, f.Text, tc.want, tc.text)
		}
		if f := classify(tc.output, tc.err, false); errors.As(f, &alarm) {
			t.Errorf("%q: an alarm by what the compiler says", tc.output)
		}
	}
}

func TestHideAddresses(t *testing.T) {
	urls := []string{"https://me:pass@proxy.corp.test/go", "http://mod:3000", "http://go", "file:///srv/mods", "sum.test+1234abcd+AAAA", "https://sums.corp.test"}
	for in, want := range map[string]string{
		`Get "https://me:***@proxy.corp.test/go/x/@v/v1.0.0.info": dial tcp 10.1.2.3:443: connect: connection refused`: `Get "PROXY/x/@v/v1.0.0.info": dial tcp: connect: connection refused`,
		`refusing to pass credentials to insecure URL: https://me:xxxxx@proxy.corp.test/go/x`:                          `refusing to pass credentials to insecure URL: PROXY/x`,
		`reading https://me:pass@proxy.corp.test/go/x: 500`:                                                            `reading PROXY/x: 500`,
		`Get "http://mod:3000/x": read tcp 192.0.2.1:4711->10.1.2.3:3000: read: connection reset by peer`:              `Get "PROXY/x": read tcp: read: connection reset by peer`,
		`Get "http://go/x": dial tcp: lookup go on 10.0.0.2:53: no such host`:                                          `Get "PROXY/x": dial tcp: lookup: no such host`,
		`proxyconnect tcp: dial tcp [2001:db8::1]:3128: i/o timeout`:                                                   `proxyconnect tcp: dial tcp: i/o timeout`,
		`open /srv/mods/x/@v/list: permission denied`:                                                                  `open PROXY/x/@v/list: permission denied`,
		`Get "https://sums.corp.test/lookup/x": EOF`:                                                                   `Get "PROXY/lookup/x": EOF`,
		`go: x.test/mod@v1.0.0 requires go >= 1.30`:                                                                    `go: x.test/mod@v1.0.0 requires go >= 1.30`,
		`main.go:3:5: undefined: dial`:                                                                                 `main.go:3:5: undefined: dial`,
	} {
		if got := hideAddresses(in, urls); got != want {
			t.Errorf("%s:\n got %s\nwant %s", in, got, want)
		}
	}
}

// A verifier that is named twice, or is this server, would agree with itself.
func TestVerifiersOnce(t *testing.T) {
	one, two := newKey(t, "one.test"), newKey(t, "two.test")
	check := func(keys ...string) error {
		c := DefaultConfig()
		c.Require = 2
		for _, k := range keys {
			c.Verifiers = append(c.Verifiers, Verifier{Key: k, URL: "http://" + k[:3] + ".test"})
		}
		return c.Check()
	}
	if err := check(one, two); err != nil {
		t.Error(err)
	}
	if err := check(one, one); err == nil || !strings.Contains(err.Error(), "one.test is there twice") {
		t.Errorf("the same twice: %v", err)
	}
	signer := newSigner(t)
	own, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	c := DefaultConfig()
	c.Verifiers, c.Require = []Verifier{{Key: own.VerifierKey()}}, 1
	_, err = New(Options{Config: c, Dir: t.TempDir(), SignerKey: signer, Sandbox: sandbox.Direct{}, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "this server's own log") {
		t.Errorf("itself: %v", err)
	}
}

// Files without content fill a disk as well.
func TestFullness(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	if size, full := sizeOf(dir), fullness(dir); size != 1000 || full != 1000+102*entrySize {
		t.Errorf("%d bytes, which fill %d", size, full)
	}
}

// A hog is a sandbox whose command fills the build's folder and does not end.
type hog struct {
	sandbox.Direct
	fill func() error
}

func (h hog) Run(ctx context.Context, job sandbox.Job) error {
	if err := h.fill(); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// A build whose folder grows over its limit is ended, be it by bytes or by names.
func TestWorkFull(t *testing.T) {
	for _, tc := range []struct {
		files, size int
	}{{1, 1 << 20}, {300, 0}} {
		dir := t.TempDir()
		b := &build{s: &Service{cfg: Config{MaxWork: 1}, dir: dir, workDir: dir, modCache: dir, blobs: &blobs{dir: dir}}, dir: dir}
		b.s.sb = hog{fill: func() error {
			for i := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, tc.size), 0o644); err != nil {
					return err
				}
			}
			return nil
		}}
		if err := b.runGo(t.Context(), sandbox.Job{}); !errors.Is(err, errWorkFull) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

func TestClaimed(t *testing.T) {
	for _, tc := range []struct {
		output string
		want   []string
	}{
		{"verifying example.org/x@v1.0.0: checksum mismatch\n\tdownloaded: h1:a\n\nSECURITY ERROR\n", []string{"example.org/x@v1.0.0"}},
		{"go: example.org/y@v1.0.0: verifying go.mod: checksum mismatch", []string{"example.org/y@v1.0.0"}},
		{"../mod/example.org/x@v1.0.0/main.go:3:8: example.org/Y@v1.0.0-rc.1: verifying module: example.org/Y@v1.0.0-rc.1: note has no verifiable signatures", []string{"example.org/Y@v1.0.0-rc.1"}},
		{"go: downloading example.org/y v1.0.0\nmain.go:5:12: pattern a@v1\nSECURITY ERROR -o@v1 /etc/passwd@v1.0.0\n", nil},
		{strings.Repeat("verifying module: example.org/x@v1.0.0 ", 50), []string{"example.org/x@v1.0.0"}},
	} {
		var got []string
		for _, m := range claimed(tc.output) {
			got = append(got, m.String())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.output, got, tc.want)
		}
	}
}

func TestLines(t *testing.T) {
	var got []string
	l := &lines{emit: func(s string) { got = append(got, s) }}
	long := strings.Repeat("x", maxLine+10)
	for _, part := range []string{"a\nb", "c\n\x1b[31mred\x00\n", long, long + "\nend", "\n", "un", "finished"} {
		l.Write([]byte(part))
	}
	l.flush()
	want := []string{"a", "bc", "[31mred", long[:maxLine], "end", "unfinished"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPlan(t *testing.T) {
	var live []string
	p := &plan{live: func(s string) { live = append(live, s) }}
	for l := range strings.Lines("go: downloading example.org/x v1.0.0\nmkdir -p $WORK/b1/\n#\n# internal/abi\n#\n\n# import config\n#\n# vendor/golang.org/x/net/idna\n#\n#\n# example.org/x\n#\n#\n# fmt\n#\n# os\n#\n# --bad flag\n#\n# nothere\n") {
		p.line(strings.TrimSuffix(l, "\n"))
	}
	got := p.standard(func(s string) bool { return s != "nothere" })
	if !slices.Equal(got, []string{"internal/abi", "fmt", "os"}) || !slices.Equal(live, []string{"go: downloading example.org/x v1.0.0"}) {
		t.Errorf("standard packages %q, live %q", got, live)
	}
}

func TestParsePath(t *testing.T) {
	const sp = "example.org/x@v1.0.0/cmd/y/linux-amd64-go1.26.3/"
	const sum = "0AAECAwQFBgcICQoLDA0ODxAREhM"
	s, err := spec.Parse(sp)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]route{
		"/example.org/x":                   {module: "example.org/x"},
		"/example.org/x/":                  {module: "example.org/x"},
		"/example.org/x@v1.0.0":            {module: "example.org/x", version: "v1.0.0"},
		"/example.org/x@latest/":           {module: "example.org/x", version: "latest"},
		"/" + sp:                           {spec: s},
		"/" + strings.TrimSuffix(sp, "/"):  {spec: s, slash: true},
		"/" + sp + sum + "/":               {spec: s, sum: sum},
		"/" + sp + sum:                     {spec: s, sum: sum, slash: true},
		"/" + sp + sum + "/record":         {spec: s, sum: sum, suffix: "record"},
		"/" + sp + "events":                {spec: s, suffix: "events"},
		"/" + sp + sum + "/y-v1.0.0-go.gz": {spec: s, sum: sum, suffix: "y-v1.0.0-go.gz"},
	} {
		if got, err := parsePath(path); err != nil || got != want {
			t.Errorf("parsePath(%q) = %+v, %v; want %+v", path, got, err, want)
		}
	}
	for _, path := range []string{"", "/x", "//", "/../x", "/example.org/../x", "/@v1.0.0", "/example.org/x@", "/example.org/x@v1", "/example.org/x@v1.0.0/linux/",
		"/example.org/x@v1.0.0//linux-amd64-go1.26.3/", "/" + sp + "a/b", "/" + sp + sum + "/a/b", "/-x.org/y@v1.0.0/linux-amd64-go1.26.3/"} {
		if got, err := parsePath(path); err == nil {
			t.Errorf("parsePath(%q) = %+v, want an error", path, got)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/example.org/x@v1.0.0/cmd/y/linux-amd64-go1.26.3/0AAECAwQFBgcICQoLDA0ODxAREhM/record")
	f.Add("/example.org/x@latest")
	f.Add("/example.org/x@v1.0.0/linux-amd64-latest")
	f.Fuzz(func(t *testing.T, path string) {
		r, err := parsePath(path)
		if err != nil {
			return
		}
		if strings.Contains(r.suffix, "/") {
			t.Fatalf("%q has the suffix %q", path, r.suffix)
		}
		if r.spec == (spec.Spec{}) && r.module == "" {
			t.Fatalf("%q asks for nothing", path)
		}
	})
}

func TestGuessTarget(t *testing.T) {
	for ua, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                   "linux/amd64",
		"Mozilla/5.0 (X11; Linux aarch64) AppleWebKit/537.36":                                      "linux/arm64",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36":                             "windows/amd64",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)": "darwin/arm64",
		"Mozilla/5.0 (X11; FreeBSD amd64; rv:128.0)":                                               "freebsd/amd64",
		"curl/8.5.0": "linux/amd64",
		"":           "linux/amd64",
	} {
		goos, goarch := guessTarget(ua)
		if got := goos + "/" + goarch; got != want {
			t.Errorf("%q: %s, want %s", ua, got, want)
		}
	}
}

func TestNewestOf(t *testing.T) {
	retracted := []*modfile.Retract{{VersionInterval: modfile.VersionInterval{Low: "v1.2.0", High: "v1.9.0"}}}
	for _, tc := range []struct {
		list    string
		retract bool
		want    string
	}{
		{"", false, ""},
		{"v1.0.0 v1.10.0 v1.9.0", false, "v1.10.0"},
		{"v1.0.0 v1.1.0-rc1", false, "v1.0.0"},
		{"v1.0.0-a v1.0.0-b", false, "v1.0.0-b"},
		{"v1.0.0 v1.2.3", true, "v1.0.0"},
		{"nonsense", false, ""},
	} {
		r := retracted
		if !tc.retract {
			r = nil
		}
		if got := newestOf(strings.Fields(tc.list), r); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.list, got, tc.want)
		}
	}
}

func TestLimits(t *testing.T) {
	c, err := newClientLimits(LimitConfig{Recent: 2, Old: 1}, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	yes, no := func() bool { return true }, func() bool { return false }
	var f *Failure
	for i, tc := range []struct {
		client string
		recent func() bool
		after  time.Duration
		ok     bool
	}{
		{"192.0.2.0/24", yes, 0, true}, {"192.0.2.0/24", yes, 0, true}, {"192.0.2.0/24", yes, 0, false},
		{"192.0.2.0/24", no, 0, true}, {"192.0.2.0/24", no, 0, false},
		{"198.51.100.0/24", yes, 0, true},
		{"192.0.2.0/24", yes, 31 * time.Minute, true}, {"192.0.2.0/24", yes, 31 * time.Minute, false},
		{"127.0.0.0/24", no, 0, true}, {"127.0.0.0/24", no, 0, true}, {"127.0.0.0/24", no, 0, true},
	} {
		err := c.take(tc.client, tc.recent, now.Add(tc.after))
		if (err == nil) != tc.ok || err != nil && (!errors.As(err, &f) || f.HTTPStatus() != 429) {
			t.Errorf("%d: %v", i, err)
		}
	}
	for i := range maxClients * 3 {
		if err := c.take(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), yes, now.Add(time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.clients) > maxClients {
		t.Errorf("%d clients are kept", len(c.clients))
	}
}

func TestAllowed(t *testing.T) {
	for _, tc := range []struct {
		allow, deny, path string
		want              bool
	}{
		{"", "", "example.org/x", true},
		{"example.org", "", "example.org/x", true},
		{"example.org/y", "", "example.org/x", false},
		{"", "example.org/x", "example.org/x/v2", false},
		{"example.org", "example.org/x", "example.org/x", false},
		{"*.org/x", "", "example.org/x", true},
	} {
		if got := allowed(strings.Fields(tc.allow), strings.Fields(tc.deny), tc.path); got != tc.want {
			t.Errorf("allow %q, deny %q: %s is %v", tc.allow, tc.deny, tc.path, got)
		}
	}
}

func TestDecide(t *testing.T) {
	same, differs, down := opinion{same: true}, opinion{differs: true}, opinion{Error: "x"}
	for _, tc := range []struct {
		opinions             []opinion
		require, outstanding int
		agreed, hopeless     bool
	}{
		{nil, 1, 1, false, false},
		{[]opinion{same}, 1, 1, true, false},
		{[]opinion{differs}, 1, 1, false, false},
		{[]opinion{differs, down}, 1, 0, false, true},
		{[]opinion{down, same}, 2, 1, false, false},
		{[]opinion{down, same}, 2, 0, false, true},
		{[]opinion{same, differs, same}, 2, 0, true, false},
	} {
		agreed, hopeless := decide(tc.opinions, tc.require, tc.outstanding)
		if agreed != tc.agreed || hopeless != tc.hopeless {
			t.Errorf("%+v: %v, %v", tc, agreed, hopeless)
		}
	}
}

func TestCheckGoMod(t *testing.T) {
	s, err := spec.Parse("example.org/x@v1.0.0/linux-amd64-go1.26.3/")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ mod, want string }{
		{"module example.org/x\n", ""},
		{"module example.org/x\ngo 1.26.3\n", ""},
		{"module example.org/x\ngo 1.26\nunknowndirective x\n", ""},
		{"module example.org/x\ngo 1.26.4\n", "needs go1.26.4"},
		{"module example.org/x\nreplace a.b/c => ./c\n", "replace"},
		{"module example.org/x\nreplace (\n\ta.b/c => ./c\n)\n", "replace"},
		{"module example.org/x\nreplace (\n)\n", ""},
		{"module example.org/x\nexclude a.b/c v1.0.0\n", "exclude"},
		{"module example.org/y\n", "example.org/y"},
		{"go 1.21\n", "does not name"},
		{"module (\n", "can't be read"},
	} {
		f := checkGoMod([]byte(tc.mod), s)
		if (f == nil) != (tc.want == "") || f != nil && !strings.Contains(f.Text, tc.want) {
			t.Errorf("%q: %v, want %q", tc.mod, f, tc.want)
		}
	}
}

func FuzzCheckGoMod(f *testing.F) {
	s, err := spec.Parse("example.org/x@v1.0.0/linux-amd64-go1.26.3/")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("module example.org/x\n\ngo 1.21\n\nrequire example.org/y v1.0.0\n\nreplace example.org/y => ../y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if fail := checkGoMod(data, s); fail != nil && (fail.Text == "" || strings.Contains(fail.Text, "\n")) {
			t.Fatalf("%q: %q", data, fail.Text)
		}
	})
}
