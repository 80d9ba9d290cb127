//go:build unix

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/sockdir"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

const (
	selfModule = "example.org/upkeep"
	envServe   = "UPKEEP_TEST_SERVE" // address: be a service
	envWorld   = "UPKEEP_TEST_WORLD" // folder of programs: serve them
	selfDir    = "cmd/upkeep"
)

// releases are real programs of this package that say to be these versions.
// What stands in the build information of one built in a working copy is as long.
func releases(t *testing.T, versions ...string) map[string][]byte {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal("the go command is needed to build upkeep and is not there")
		}
		t.Skip("the go command is not there to build upkeep")
	}
	file := filepath.Join(t.TempDir(), "upkeep")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s", "-buildvcs=false", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	built := map[string][]byte{}
	for _, v := range versions {
		built[selfDir+"@"+v] = asVersion(t, data, v)
	}
	return built
}

func asVersion(t *testing.T, data []byte, v string) []byte {
	t.Helper()
	old, new := "mod\t"+selfModule+"\t(devel)\t", "mod\t"+selfModule+"\t"+v+"\t"
	if len(old) != len(new) || !bytes.Contains(data, []byte(old)) {
		t.Fatalf("%q can't be made %q", old, new)
	}
	return bytes.ReplaceAll(data, []byte(old), []byte(new))
}

// selfWorld is a builder, a module proxy, a checksum database and a zone, all
// of which know the versions of the programs, which are called like
// "cmd/upkeep@v0.1.10". The zone's key goes into a file.
func selfWorld(t *testing.T, bins map[string][]byte, anchor string) (cfg string, publish func(version string)) {
	t.Helper()
	zonetest.Epoch = time.Now().UTC().Truncate(time.Second)
	tree := zonetest.New(t, zonetest.Fast)
	qname, err := name.Module(selfModule, zonetest.ZoneName)
	if err != nil {
		t.Fatal(err)
	}
	publish = func(version string) {
		tree.Mu.Lock()
		defer tree.Mu.Unlock()
		tree.Zone.Set(&dns.TXT{Hdr: dns.RR_Header{Name: qname, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{"v=" + version + " t=6a000000"}})
	}
	builds, key := logtest.OpenLog(t, "builder.example.org")
	sums, sumKey := logtest.OpenLog(t, "sum.example.org")
	goMod := "module " + selfModule + "\n"
	var list []string
	for program := range bins {
		_, v, _ := strings.Cut(program, "@")
		if slices.Contains(list, v) {
			continue
		}
		list = append(list, v)
		h := goModSum(goMod)
		if _, err := sums.Append(t.Context(), tlog.Entry{Key: selfModule + "@" + v, Text: fmt.Appendf(nil, "%s %s h1:a=\n%s %s/go.mod %s\n", selfModule, v, selfModule, v, h)}); err != nil {
			t.Fatal(err)
		}
	}
	build := func(ctx context.Context, key string) error {
		s, err := spec.Parse(key)
		if err != nil {
			return err
		}
		data := bins[s.Dir+"@"+s.Version]
		rec := spec.Record{Spec: s, Size: int64(len(data)), Sum: spec.Sum(sha256.Sum256(data))}
		_, err = builds.Append(ctx, tlog.Entry{Key: key, Text: rec.Line()})
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/builder/tlog/", http.StripPrefix("/builder/tlog", builds.Handler(build)))
	mux.HandleFunc("/builder/", func(w http.ResponseWriter, r *http.Request) {
		for program, data := range bins {
			dir, v, _ := strings.Cut(program, "@")
			if strings.Contains(r.URL.Path, "@"+v+"/"+dir+"/") && strings.HasSuffix(r.URL.Path, ".gz") {
				zw, _ := gzip.NewWriterLevel(w, gzip.NoCompression) // it is a level
				_, _ = zw.Write(data)
				zw.Close()
				return
			}
		}
		http.NotFound(w, r)
	})
	mux.Handle("/sumdb/", http.StripPrefix("/sumdb", sums.Handler(nil)))
	mux.HandleFunc("/proxy/"+selfModule+"/@v/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/list"):
			io.WriteString(w, strings.Join(list, "\n"))
		case strings.HasSuffix(r.URL.Path, ".mod"):
			io.WriteString(w, goMod)
		default:
			http.NotFound(w, r)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	if err := os.WriteFile(anchor, []byte(tree.Anchor()), 0o644); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[discovery]\ntimeout = \"1m\"\nzone = %q\nsources = [%q]\nanchor = %q\n[fetch]\nkey = %q\nbuilder = %q\nproxy = %q\nsumdb = %q\n",
		zonetest.ZoneName, "udp://"+tree.Addr, anchor, key, srv.URL+"/builder", srv.URL+"/proxy", sumKey+" "+srv.URL+"/sumdb"), publish
}

// goModSum is the sum of a go.mod file, as in go.sum.
func goModSum(text string) string {
	file := sha256.Sum256([]byte(text))
	all := sha256.Sum256(fmt.Appendf(nil, "%x  go.mod\n", file))
	return "h1:" + base64.StdEncoding.EncodeToString(all[:])
}

// serveWorld is selfWorld with the programs of a folder, for supervisor/vm-test.sh.
// It gives them the versions that they are called, and never returns.
func serveWorld(t *testing.T, dir string) {
	bins := map[string][]byte{}
	newest := ""
	err := filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		_, v, ok := strings.Cut(file, "@")
		if err != nil || !ok {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		program, err := filepath.Rel(dir, file)
		bins[program], newest = asVersion(t, data, v), max(newest, v)
		return errors.Join(err, os.WriteFile(file, bins[program], 0o755))
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, publish := selfWorld(t, bins, filepath.Join(dir, "anchor"))
	publish(newest)
	if err := os.WriteFile(filepath.Join(dir, "world.toml"), []byte(cfg), 0o644); err != nil {
		t.Fatal(err)
	}
	fmt.Println("serving with", runtime.Version())
	select {}
}

// The real program updates itself while a service runs under it and everybody
// asks all the time: found by DNS, built and verified like any other program.
func TestRealSelfUpdate(t *testing.T) {
	if addr := os.Getenv(envServe); addr != "" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go outlive(os.Getppid())
		fmt.Println("serving")
		t.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })))
	}
	if dir := os.Getenv(envWorld); dir != "" {
		serveWorld(t, dir)
	}
	bins := releases(t, "v0.1.10", "v0.1.11")
	dir := sockdir.New(t)
	world, publish := selfWorld(t, bins, filepath.Join(dir, "anchor"))
	service, page := freePort(t), freePort(t)
	file := filepath.Join(dir, "upkeep.toml")
	config := fmt.Sprintf(`state = %q
[service]
path = %q
args = ["-test.run=^TestRealSelfUpdate$"]
[process]
env = ["%s=%s"]
[updates]
policy = "manual"
toolchain = "manual"
interval = "300ms"
jitter = "0s"
[self]
delay = "0s"
toolchain = "manual"
probation = "1s"
[web]
listen = %q
`, filepath.Join(dir, "state"), filepath.Join(dir, "hello"), envServe, service, page)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, "upkeep-v0.1.10-"+runtime.Version()+"-stripped")
	for _, err := range []error{
		os.WriteFile(file, []byte(config+world), 0o600), os.Symlink(exe, filepath.Join(dir, "hello")),
		os.WriteFile(first, bins[selfDir+"@v0.1.10"], 0o755), os.Symlink(filepath.Base(first), filepath.Join(dir, "upkeep")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("v0.1.10")
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(dir, "upkeep"), "run", "-config", file)
	cmd.Stderr = &out
	cmd.WaitDelay = time.Minute
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	socket := filepath.Join(dir, "state", "control.sock")
	await := func(what string, cond func(supervisor.Status) bool) (s supervisor.Status) {
		t.Helper()
		var err error
		for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if s, err = supervisor.NewClient(socket).Status(t.Context()); err == nil && cond(s) {
				return s
			}
		}
		_ = cmd.Process.Kill()
		<-ended
		t.Fatalf("no %s: %v, %s %q, %+v, last result %+v\n%s", what, err, s.Code, s.Summary, s.Self, s.Self.LastResult, out.String())
		return s
	}
	get := func(url string) (string, error) {
		hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := hc.Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(data)), err
	}
	before := await("start", func(s supervisor.Status) bool {
		_, errService := get("http://" + service + "/")
		_, errPage := get("http://" + page + "/")
		return errService == nil && errPage == nil && s.Self.Plan != nil && len(s.Self.Plan.Versions) > 0
	})
	if before.Self.Version != "v0.1.10" || before.Self.Off != "" || before.Self.Plan.Automatic {
		t.Fatalf("self %+v", before.Self)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asked, failed atomic.Int64
	for _, url := range []string{"http://" + service + "/", "http://" + page + "/", "http://" + page + "/metrics"} {
		go func() {
			for ctx.Err() == nil {
				if answer, err := get(url); (err != nil || !strings.HasPrefix(answer, "200 ")) && ctx.Err() == nil {
					if failed.Add(1) < 5 {
						t.Logf("%s: %v %.200s", url, err, answer)
					}
				}
				asked.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	publish("v0.1.11")
	after := await("self-update", func(s supervisor.Status) bool {
		return s.Self.Version == "v0.1.11" && s.Self.LastResult != nil && s.Self.Update == nil
	})
	time.Sleep(100 * time.Millisecond) // the requests of a while after it count too
	cancel()
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d requests failed", n, asked.Load())
	}
	if after.Service.Pid != before.Service.Pid || after.Self.Pid != cmd.Process.Pid || after.Service.Restarts != 0 || len(after.Events) != 0 {
		t.Errorf("service %d was %d, upkeep %d was %d, events %+v\n%s", after.Service.Pid, before.Service.Pid, after.Self.Pid, cmd.Process.Pid, after.Events, out.String())
	}
	r := after.Self.LastResult
	if r == nil || r.Kind != "self_update" || r.Result != supervisor.ResultInstalled || r.By != "policy" || r.Sum == "" || r.Builder == "" {
		t.Errorf("result %+v", r)
	}
	if metrics, err := get("http://" + page + "/metrics"); err != nil || !strings.Contains(metrics, `upkeep_self_info{go_version="`+runtime.Version()+`",version="v0.1.11"} 1`) &&
		!strings.Contains(metrics, `upkeep_self_info{version="v0.1.11",go_version="`+runtime.Version()+`"} 1`) {
		t.Errorf("%v %s", err, metrics)
	}
	// Commands of the new version find it, and a stop ends both.
	if text, err := exec.Command(filepath.Join(dir, "upkeep"), "version").Output(); err != nil || !strings.Contains(string(text), "v0.1.11") {
		t.Errorf("%s, %v", text, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatalf("it does not stop\n%s", out.String())
	}
	if answer, err := get("http://" + service + "/"); err == nil {
		t.Errorf("the service still answers: %s", answer)
	}
}

// freePort is an address whose port was free a moment ago; on Linux it is one of
// many, where nobody else is given the port by chance.
func freePort(t *testing.T) string {
	ip := "127.0.0.1"
	if runtime.GOOS == "linux" {
		ip = net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(255)), byte(1+rand.IntN(254))).String()
	}
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// outlive ends this process when its parent is another one: tests that are
// broken off stop nothing themselves.
func outlive(parent int) {
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(5)
}
