package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/modserver"
	"example.org/upkeep/tlog"
)

// The tests run the program itself: this test binary under another name.
func TestMain(m *testing.M) {
	if os.Getenv("UPKEEP_TEST_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_MAIN=1")
	cmd.WaitDelay = time.Minute
	return cmd
}

// run returns what the program says, and its exit code.
func run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := command(ctx, args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%v does not end in ten minutes\n%s", args, out)
	}
	if err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			t.Fatal(err)
		}
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// goRoot returns the folder of the machine's Go. Without one the test is
// skipped, or fails when UPKEEP_TEST_FULL is 1.
func goRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil && os.Getenv("UPKEEP_TEST_FULL") == "1" {
		t.Fatalf("no go command says where it is: %v", err)
	} else if err != nil {
		t.Skipf("no go command says where it is: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func ecosystem(t *testing.T) (proxy string, db *modserver.Server) {
	t.Helper()
	s, err := modserver.Open(t.TempDir(), "sum.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err = s.Publish(t.Context(), module.Version{Path: "example.org/hello", Version: "v1.0.0"}, time.Unix(1767225600, 0), map[string][]byte{
		"go.mod": []byte("module example.org/hello\n\ngo 1.21\n"), "main.go": []byte("package main\n\nfunc main() { println(\"hello\") }\n")})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL, s
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, code := run(t, "keygen", "-key", key, "build.test"); code != 0 || !strings.HasPrefix(out, "build.test+") {
		t.Fatalf("keygen: %d %s", code, out)
	}
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	proxy, _ := ecosystem(t)
	_, otherKey, err := tlog.GenerateKey("sum.test")
	if err != nil {
		t.Fatal(err)
	}
	good := []string{"-key", key, "-state", filepath.Join(dir, "state"), "-proxy", proxy, "-database", otherKey, "-no-sandbox"}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"key exists", []string{"keygen", "-key", key, "build.test"}, 1, "never overwritten"},
		{"no name", []string{"keygen"}, 2, "takes the name"},
		{"unknown key", []string{"config", "check", "-config", write("a.toml", "[build]\nparalel = 2\n")}, 1, "a.toml:2:1: key build.paralel: is not known; did you mean build.parallel?"},
		{"bad value", []string{"config", "check", "-config", write("b.toml", "[build]\ntries = 0\n")}, 1, "tries is 0"},
		{"bad mechanism", []string{"config", "check", "-config", write("c.toml", "[sandbox]\nwithout = [\"luck\"]\n")}, 1, "luck"},
		{"bad address", []string{"config", "check", "-config", write("d.toml", "listen = \"localhost\"\n")}, 1, "is not host:port"},
		{"half a certificate", []string{"config", "check", "-config", write("e.toml", "[tls]\nkey = \"k\"\n")}, 1, "certificate and key need each other"},
		{"no proxy", append([]string{"config", "check"}, append(good, "-proxy", "direct")...), 1, "modules.proxy: module proxy list \"direct\" names no proxy"},
		{"no networks", []string{"config", "check", "-config", write("f.toml", "[[build.verifiers]]\nkey = \""+otherKey+"\"\nfrom = [\"there\"]\n")}, 1, "is no address and no network"},
		{"no log key", []string{"serve", "-key", filepath.Join(dir, "none")}, 1, "upkeep-build keygen -key"},
		{"damaged log key", []string{"serve", "-key", write("bad", "nonsense\n")}, 1, "malformed"},
		{"database off", append([]string{"serve", "-listen", "127.0.0.1:0"}, append(good, "-database", "off")...), 1, "does not run without one"},
		{"port in use", append([]string{"serve", "-listen", busy.Addr().String()}, good...), 1, "another program listens on " + busy.Addr().String()},
		{"wrong database key", append([]string{"serve", "-listen", "127.0.0.1:0"}, good...), 1, "Nothing was downloaded."},
		{"missing goroot", append([]string{"serve", "-listen", "127.0.0.1:0", "-goroot", dir}, good...), 1, ""},
		{"verify without a log", []string{"verify"}, 2, "takes the verifier key"},
	} {
		out, code := run(t, tc.args...)
		if code != tc.code || !strings.Contains(out, tc.want) || strings.Contains(out, "goroutine ") {
			t.Errorf("%s: exit status %d, want %d and %q:\n%s", tc.name, code, tc.code, tc.want, out)
		}
	}
	if out, code := run(t, "config", "default"); code != 0 || !strings.Contains(out, "compile_timeout") {
		t.Errorf("config default: %d %s", code, out)
	} else if out, code := run(t, "config", "check", "-config", write("default.toml", strings.Replace(out, "/var/lib/upkeep-build.key", key, 1))); code != 0 {
		t.Errorf("the default configuration is not good: %s", out)
	}
}

// Flags override the file, also those that can be given more than once.
func TestFlagsOverride(t *testing.T) {
	file := filepath.Join(t.TempDir(), "build.toml")
	if err := os.WriteFile(file, []byte("listen = \"localhost:1\"\nhosts = [\"old.example.org\"]\n[sandbox]\nwithout = [\"cgroup\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var f configFlags
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	f.register(fs)
	if err := fs.Parse([]string{"-config", file, "-listen", "localhost:2", "-hosts", "a.example.org,b.example.org", "-hosts", "c.example.org", "-without", "landlock"}); err != nil {
		t.Fatal(err)
	}
	c, err := f.load()
	got := fmt.Sprint(c.Listen, c.Hosts, c.Sandbox.Without)
	if want := "localhost:2[a.example.org b.example.org c.example.org] [landlock]"; err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

var listens = regexp.MustCompile(`url=(http://\S+/) key=(\S+)`)

// startServer starts the program and waits until it listens.
func startServer(t *testing.T, args []string) (cmd *exec.Cmd, url, verifier string) {
	t.Helper()
	cmd = command(t.Context(), args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said string
	endless := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	sc := bufio.NewScanner(stderr)
	for sc.Scan() {
		said += sc.Text() + "\n"
		if m := listens.FindStringSubmatch(sc.Text()); m != nil {
			url, verifier = m[1], m[2]
			break
		}
	}
	if !endless.Stop() || url == "" {
		t.Fatalf("it does not listen within two minutes: %s", said)
	}
	go func() {
		for sc.Scan() {
		}
	}()
	return cmd, url, verifier
}

// The program serves, builds, says so in metrics, and ends on SIGTERM and SIGHUP; a
// second one on the same folder is refused; an auditor agrees with it.
func TestServe(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	proxy, db := ecosystem(t)
	dir := t.TempDir()
	key, state := filepath.Join(dir, "key"), filepath.Join(dir, "state")
	if out, code := run(t, "keygen", "-key", key, "build.test"); code != 0 {
		t.Fatal(out)
	}
	// The auditor need not compile the standard library again.
	std, audit := filepath.Join(dir, "std"), filepath.Join(dir, "audit")
	for _, d := range []string{std, state, audit} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if d == std {
			continue
		}
		if err := os.Symlink(std, filepath.Join(d, "std")); err != nil {
			t.Fatal(err)
		}
	}
	source := []string{"-proxy", proxy, "-database", db.VerifierKey(), "-goroot", goRoot(t), "-no-sandbox"}
	args := append([]string{"serve", "-listen", "127.0.0.1:0", "-key", key, "-state", state}, source...)
	cmd, url, verifier := startServer(t, args)
	client, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: url + "tlog", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	sp := "example.org/hello@v1.0.0/" + runtime.GOOS + "-" + runtime.GOARCH + "-" + runtime.Version() + "/"
	rec, err := client.Lookup(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := spec.ParseRecord(rec.Data); err != nil || r.Spec.String() != sp {
		t.Errorf("record %q, %v", rec.Data, err)
	}
	get := func(path string) (int, string) {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := get("metrics"); code != 200 || !strings.Contains(body, `upkeep_build_results_total{result="success"} 1`) || !strings.Contains(body, `upkeep_build_alarms_total{kind="sum_differs"} 0`) {
		t.Errorf("metrics: %d %s", code, body)
	}
	if code, body := get(sp); code != 200 || !strings.Contains(body, "bubblewrap") {
		t.Errorf("the result page does not say that the sandbox is missing: %d %s", code, body)
	}
	if out, code := run(t, append([]string{"serve", "-listen", "127.0.0.1:0", "-key", key, "-state", state}, source...)...); code != 1 || !strings.Contains(out, "another build service uses the folder") {
		t.Errorf("a second server: %d %s", code, out)
	}
	out, code := run(t, append(append([]string{"verify", "-once", "-url", url + "tlog", "-state", audit}, source...), verifier)...)
	if code != 0 || !strings.Contains(out, "same 0 "+sp) {
		t.Errorf("audit: %d %s", code, out)
	}
	if out, code := run(t, "fsck", "-state", state, verifier); code != 0 || !strings.Contains(out, "1 records and 1 binaries were checked") {
		t.Errorf("fsck of a server that runs: %d %s", code, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if !signal.Ignored(syscall.SIGHUP) { // or a child ignores it too
		cmd, _, _ := startServer(t, args)
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGHUP: %v", err)
		}
	}
	binaries, err := filepath.Glob(filepath.Join(state, "blobs", "??", strings.Repeat("?", 64)))
	if err != nil || len(binaries) != 1 {
		t.Fatalf("%v, %v", binaries, err)
	}
	if err := os.Truncate(binaries[0], 1000); err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, "fsck", "-state", state, verifier); code != 1 || !strings.Contains(out, binaries[0]) {
		t.Errorf("fsck with a cut binary: %d %s", code, out)
	}
}
