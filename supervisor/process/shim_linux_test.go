package process

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Shim()
	os.Exit(m.Run())
}

// script runs a shell script to its end, as a service.
func script(t *testing.T, text string, change func(*Spec)) (out string, x Exit, err error) {
	t.Helper()
	var b safeBuffer
	s := Spec{File: sh(t), Name: "sh", Args: []string{"-c", text + "; echo end"}, Env: os.Environ(), Stop: syscall.SIGTERM,
		Grace: time.Minute, Output: NewOutput(&b, &b)}
	change(&s)
	p, err := runner(t).Start(s)
	if err != nil {
		return "", Exit{}, err
	}
	<-p.Done()
	for end := time.Now().Add(2 * time.Minute); !strings.HasSuffix(b.String(), "end\n") && p.Exit().Code == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("its output ends with %q", b.String())
		}
	}
	return strings.TrimSuffix(b.String(), "end\n"), p.Exit(), nil
}

// told is a handover that lets everything go on.
type told struct {
	mu      sync.Mutex
	notify  bool
	why     string
	started int
	ended   int
}

func (h *told) Started(_ int, f *os.File, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started++
	h.why, h.notify = why, f != nil
	if f != nil {
		f.Close() // binds fail from here on
	}
}
func (h *told) Stopping(int)    {}
func (h *told) Ended(int, Exit) { h.mu.Lock(); h.ended++; h.mu.Unlock() }

// needTelling skips where the system can't tell of bind calls.
func needTelling(t *testing.T) {
	t.Helper()
	if err := CanTellBinds("/proc/self/exe"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func TestShim(t *testing.T) {
	needTelling(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	limits := []Rlimit{{unix.RLIMIT_NOFILE, 100, 200}}
	for _, tc := range []struct {
		name, script, want string
		change             func(*Spec)
	}{
		{"limits", "ulimit -Sn; ulimit -Hn", "100\n200\n", func(s *Spec) { s.Rlimits = limits }},
		{"socket", `echo $LISTEN_FDS $LISTEN_FDNAMES; test $LISTEN_PID = $$ && echo mine; readlink /proc/self/fd/3 | cut -c1-6`, "1 web\nmine\nsocket\n",
			func(s *Spec) { s.ListenFDs = []ListenFD{{"web", f}} }},
		{"nothing else is open", "ls /proc/self/fd | wc -l", "4\n", func(s *Spec) { s.Rlimits = limits }}, // 0, 1, 2 and ls's own
		{"folder", "pwd", "/\n", func(s *Spec) { s.Rlimits, s.Dir = limits, "/" }},
		{"arguments", `echo "$0 $1"`, "a b\n", func(s *Spec) { s.Rlimits, s.Args = limits, append(s.Args, "a", "b") }},
		{"signals", "trap", "", func(s *Spec) { s.Rlimits = limits }},
		{"filter", "grep Seccomp: /proc/self/status | cut -f2", "2\n", func(s *Spec) { s.Handover, s.TellBinds = new(told), true }},
		{"no filter", "grep Seccomp: /proc/self/status | cut -f2", "0\n", func(s *Spec) { s.Rlimits = limits }},
		{"verified file", "cat /proc/$$/comm", "name\n", func(s *Spec) {
			s.Rlimits, s.Name = limits, "/somewhere/name"
			if s.Open, err = os.Open(s.File); err != nil {
				t.Fatal(err)
			}
			s.File = "/nonexistent"
		}},
	} {
		out, x, err := script(t, tc.script, tc.change)
		if err != nil || out != tc.want || x.Code != 0 {
			t.Errorf("%s: %q, %v, %v; want %q", tc.name, out, x, err, tc.want)
		}
	}
	for name, tc := range map[string]struct {
		change func(*Spec)
		text   string
	}{
		"program": {func(s *Spec) { s.Rlimits, s.File = limits, "/nonexistent" }, "no such file"},
		"folder":  {func(s *Spec) { s.Rlimits, s.Dir = limits, "/nonexistent" }, "chdir /nonexistent"},
		"limit":   {func(s *Spec) { s.Rlimits = []Rlimit{{unix.RLIMIT_NOFILE, 200, 100}} }, "resource limit"},
	} {
		if _, _, err := script(t, "true", tc.change); err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s that can't be had: %v; want %q", name, err, tc.text)
		}
	}
}

// The service is who it is told to be, whichever way it is started.
func TestShimUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	needTelling(t)
	text := "id -u; id -g; id -G; grep -E '^(CapEff|CapAmb|NoNewPrivs)' /proc/self/status | tr -d '\\t'; grep Seccomp: /proc/self/status | tr -d '\\t'"
	cred := &Cred{UID: 65534, GID: 65533, Groups: []uint32{65533, 60001}, Ambient: []uintptr{10}}
	const want = "65534\n65533\n65533 60001\nCapEff:0000000000000400\nCapAmb:0000000000000400\nNoNewPrivs:0\n"
	for _, tc := range []struct {
		name   string
		change func(*Spec)
		filter string
	}{
		{"plainly", func(*Spec) {}, "0"},
		{"through the shim", func(s *Spec) { s.Rlimits = []Rlimit{{unix.RLIMIT_CORE, 0, 0}} }, "0"},
		{"with its calls told", func(s *Spec) { s.Handover, s.TellBinds = new(told), true }, "2"},
	} {
		out, _, err := script(t, text, func(s *Spec) { s.Cred = cred; tc.change(s) })
		if err != nil || out != want+"Seccomp:"+tc.filter+"\n" {
			t.Errorf("%s: %q, %v", tc.name, out, err)
		}
	}
}

// What can't be told is said, and the service runs all the same.
func TestShimWithout(t *testing.T) {
	needTelling(t)
	h := new(told)
	shimReady = false
	_, x, err := script(t, "true", func(s *Spec) { s.Handover, s.TellBinds = h, true })
	shimReady = true
	if err != nil || x.Code != 0 || h.started != 1 || h.notify || h.why == "" || h.ended != 1 {
		t.Errorf("%v, %v, %+v", err, x, h)
	}
	// A second listener: the first filter of the service's own tree.
	h = new(told)
	if _, x, err = script(t, "true", func(s *Spec) { s.Handover, s.TellBinds = h, true }); err != nil || x.Code != 0 || !h.notify || h.why != "" {
		t.Errorf("%v, %v, %+v", err, x, h)
	}
}

func TestParseRlimit(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Rlimit
		bad  string
	}{
		{"nofile=1024", Rlimit{unix.RLIMIT_NOFILE, 1024, 1024}, ""},
		{"core=0:infinity", Rlimit{unix.RLIMIT_CORE, 0, unix.RLIM_INFINITY}, ""},
		{"NPROC=infinity", Rlimit{unix.RLIMIT_NPROC, unix.RLIM_INFINITY, unix.RLIM_INFINITY}, ""},
		{"nofile", Rlimit{}, "no number"},
		{"nofile=-1", Rlimit{}, "no number"},
		{"files=1", Rlimit{}, "names no resource"},
		{"nofile=2:1", Rlimit{}, "above"},
	} {
		got, err := ParseRlimit(tc.text)
		if got != tc.want || (err != nil) != (tc.bad != "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%s: %v, %v; want %v, %q", tc.text, got, err, tc.want, tc.bad)
		}
	}
}

// BenchmarkStart: what the shim adds to a start.
func BenchmarkStart(b *testing.B) {
	for _, shim := range []bool{false, true} {
		b.Run(fmt.Sprint("shim=", shim), func(b *testing.B) {
			r := NewOS(b.TempDir(), slog.New(slog.DiscardHandler))
			for b.Loop() {
				s := Spec{File: "/bin/true", Name: "true", Env: os.Environ(), Stop: syscall.SIGTERM, Grace: time.Second}
				if shim {
					s.Handover, s.TellBinds = new(told), true
				}
				p, err := r.Start(s)
				if err != nil {
					b.Fatal(err)
				}
				<-p.Done()
			}
		})
	}
}
