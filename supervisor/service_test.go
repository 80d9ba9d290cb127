//go:build unix

package supervisor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/proxy"
)

// The services of the tests are this test binary under versioned names: the
// name tells the version, and the environment tells how each version behaves.
const (
	envService    = "UPKEEP_TEST_SERVICE"    // "v1.0.1=exit1 v1.0.2=unhealthy", a version not named is well
	envAddr       = "UPKEEP_TEST_ADDR"       // where it listens
	envSupervisor = "UPKEEP_TEST_SUPERVISOR" // folder: be a supervisor
	envTest       = "UPKEEP_TEST_PID"        // process of the tests: nothing outlives it
)

func TestMain(m *testing.M) {
	process.Shim()
	proxy.Helper()
	saveRetry = 100 * time.Millisecond
	if pid, err := strconv.Atoi(os.Getenv(envTest)); err == nil {
		go outliveNot(pid)
	}
	switch {
	case os.Getenv(envService) != "":
		testService()
	case os.Getenv(envSupervisor) != "":
		os.Exit(testSupervisor(os.Getenv(envSupervisor)))
	}
	// Processes are waited for most of the time; -parallel says otherwise.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}

// atExit is done after all tests.
var atExit []func()

// outliveNot ends this process when that of the tests is gone: tests that are
// broken off stop nothing themselves.
func outliveNot(pid int) {
	for {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			os.Exit(5)
		}
		time.Sleep(time.Second)
	}
}

// versionOfFile reads "hello-v1.0.1-go1.26.8".
func versionOfFile(file string) (Pair, bool) {
	_, name, _ := strings.Cut(filepath.Base(file), "-")
	i := strings.LastIndex(name, "-go1")
	if i < 0 {
		return Pair{}, false
	}
	return Pair{name[:i], name[i+1:]}, true
}

// testBehaviours are further ones, done before listening.
var testBehaviours = map[string]func(version string){}

func testService() {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	version, _ := versionOfFile(exe)
	behaviour := "well"
	for item := range strings.FieldsSeq(os.Getenv(envService)) {
		if v, b, _ := strings.Cut(item, "="); v == version.Version || v == "all" {
			behaviour = b
		}
	}
	fmt.Printf("%s is %s, process %d\n", version.Version, behaviour, os.Getpid())
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	kind, arg, _ := strings.Cut(behaviour, ":")
	switch kind {
	case "exit0":
		os.Exit(0)
	case "exit1":
		os.Exit(1)
	case "crash": // after a time
		d, err := time.ParseDuration(arg)
		if err != nil {
			panic(err)
		}
		time.AfterFunc(d, func() { os.Exit(3) })
	case "hang": // never listens
		<-term
		os.Exit(0)
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		term = nil
	case "daemon": // leaves a child in a session of its own
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
	case "silent":
		os.Stdout.Close()
		os.Stderr.Close()
	}
	if f := testBehaviours[kind]; f != nil {
		f(version.Version)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if kind == "unhealthy" {
			w.WriteHeader(500)
		}
		fmt.Fprintf(w, "%s %d", version.Version, os.Getpid())
	})
	l, err := net.Listen("tcp", os.Getenv(envAddr))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	<-term
	_ = srv.Shutdown(context.Background())
	if kind == "exit7" {
		os.Exit(7)
	}
	os.Exit(0)
}
