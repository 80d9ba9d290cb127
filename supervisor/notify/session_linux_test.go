package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/internal/sockdir"
	"example.org/upkeep/supervisor/handoff"
	"github.com/coreos/go-systemd/v22/daemon"
)

// sayEnv makes this test program send its value and end.
const sayEnv = "UPKEEP_TEST_SAY"

func TestMain(m *testing.M) {
	if say := os.Getenv(sayEnv); say != "" {
		if sent, err := daemon.SdNotify(false, say); !sent {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(answerEnv) != "" {
		answer()
	}
	os.Exit(m.Run())
}

// answerEnv makes this test program answer on the socket that it is passed.
const answerEnv = "UPKEEP_TEST_ANSWER"

func answer() {
	list := Inherited()
	if len(list) != 1 || len(Inherited()) != 0 || os.Getenv("LISTEN_FDS") != "" {
		fmt.Fprintf(os.Stderr, "passed were %v\n", list)
		os.Exit(1)
	}
	l, err := net.FileListener(list[0].File)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c, err := l.Accept()
	if err != nil {
		os.Exit(1)
	}
	fmt.Fprintf(c, "this is %s", list[0].Name)
	c.Close()
	os.Exit(0)
}

// patience is for what happens by itself, on a slow machine too.
const patience = 2 * time.Minute

func listen(t *testing.T, opt Options) *Session {
	t.Helper()
	if opt.Belongs == nil {
		opt.Belongs = func(pid int) bool { return pid == os.Getpid() }
	}
	s, err := Listen(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	name, ok := strings.CutPrefix(s.Env()[0], "NOTIFY_SOCKET=")
	if !ok {
		t.Fatalf("environment %q", s.Env())
	}
	t.Setenv("NOTIFY_SOCKET", name)
	return s
}

func say(t *testing.T, text string) {
	t.Helper()
	if sent, err := daemon.SdNotify(false, text); !sent {
		t.Fatalf("sending %q: %v", text, err)
	}
}

// flush waits until all that was sent is done: a barrier's descriptor is closed.
func flush(t *testing.T) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = sendFiles("BARRIER=1", []*os.File{w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("barrier: %v", err)
	}
}

func within(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited for %s in vain", what)
	}
}

func TestSession(t *testing.T) {
	s := listen(t, Options{})
	say(t, "STATUS=before the attach") // waits in the kernel
	if s.State().Messages != 0 {
		t.Error("a message was read before it could be known whose it is")
	}
	s.Attach()
	say(t, "READY=1\nSTATUS=serving\nMAINPID=77")
	within(t, s.Ready(), "READY")
	say(t, "EXTEND_TIMEOUT_USEC=60000000")
	say(t, "nonsense\x00inside")
	flush(t)
	st := s.State()
	if st.Status != "serving" || st.MainPID != 77 || st.Extended.Before(time.Now()) || st.Refused != 1 || st.Messages != 4 {
		t.Errorf("state %+v", st)
	}
	within(t, s.Changed(), "a change")
	say(t, "WATCHDOG=trigger")
	within(t, s.Expired(), "the watchdog")
}

func TestForeignSender(t *testing.T) {
	s := listen(t, Options{})
	s.Attach()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sayEnv+"=READY=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	flush(t)
	if st := s.State(); st.Ready || st.Refused != 1 {
		t.Errorf("a process that is not of the service was heard: %+v", st)
	}
}

func TestWatchdog(t *testing.T) {
	s := listen(t, Options{Watchdog: 30 * time.Millisecond})
	if env := s.Env(); len(env) != 2 || env[1] != "WATCHDOG_USEC=30000" {
		t.Errorf("environment %q", env)
	}
	s.Attach()
	say(t, "READY=1")
	within(t, s.Expired(), "the watchdog")

	// A service that is stopping isn't watched any more.
	s = listen(t, Options{Watchdog: time.Hour})
	s.Attach()
	say(t, "READY=1\nSTOPPING=1\nWATCHDOG_USEC=1")
	flush(t)
	select {
	case <-s.Expired():
		t.Error("the watchdog bit a service that is stopping")
	default:
	}
}

func TestTooMuch(t *testing.T) {
	st := new(Store)
	s := listen(t, Options{Store: st})
	s.Attach()
	flush(t)
	before := openFiles(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	many := make([]*os.File, maxFiles+40)
	for i := range many {
		many[i] = null
	}
	if err := sendFiles("FDSTORE=1", many); err != nil {
		t.Fatal(err)
	}
	say(t, "READY=1\nSTATUS="+strings.Repeat("a", maxMessage))
	flush(t)
	null.Close()
	if got := s.State(); got.Ready || got.Refused != 2 {
		t.Errorf("state %+v", got)
	}
	if n := openFiles(t); n != before || len(st.Files()) != 0 {
		t.Errorf("%d files are open, %d before; %d kept", n, before, len(st.Files()))
	}
}

func TestResume(t *testing.T) {
	s := listen(t, Options{Watchdog: time.Hour})
	s.Attach()
	say(t, "READY=1\nSTATUS=one")
	within(t, s.Ready(), "READY")
	st := new(Store)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.add("null", null, false); err != nil {
		t.Fatal(err)
	}
	b := handoff.New()
	defer b.Close()
	if err := errors.Join(s.Handoff(b), st.Handoff(b)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	say(t, "STATUS=while nobody listens")
	st = new(Store)
	if err := st.Attach(b); err != nil {
		t.Fatal(err)
	}
	if list := st.Files(); len(list) != 1 || list[0].Name != "null" {
		t.Errorf("kept: %v", list)
	}
	opt := Options{Belongs: func(int) bool { return true }}
	s, err = Attach(b, opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Attach()
	if none, err := Attach(b, opt); none != nil || err != nil {
		t.Errorf("a session twice: %v, %v", none, err)
	}
	defer s.Close()
	within(t, s.Ready(), "what was said before")
	flush(t)
	if st := s.State(); st.Status != "while nobody listens" || st.Watchdog != time.Hour {
		t.Errorf("state %+v", st)
	}
	say(t, "WATCHDOG_USEC=1000")
	within(t, s.Expired(), "the watchdog")
}

func TestUpward(t *testing.T) {
	st := new(Store)
	s := listen(t, Options{Store: st})
	s.Attach()
	log := slog.New(slog.DiscardHandler)
	up := Up(log)
	up.Status("hello v1.0.0 ok")
	up.Status("hello v1.0.0 ok") // not sent again
	up.Ready()
	flush(t)
	if got := s.State(); !got.Ready || got.Status != "hello v1.0.0 ok" || got.Messages != 3 {
		t.Errorf("state %+v", got)
	}
	up.Reloading()
	flush(t)
	if !s.State().Reloading {
		t.Error("not reloading")
	}
	up.Extend(time.Minute)
	up.Stopping()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	up.StoreFile(Named{"null", null})
	up.StoreFile(Named{"bad:name", null})
	flush(t)
	if got := s.State(); !got.Stopping || got.Extended.IsZero() {
		t.Errorf("state %+v", got)
	}
	if list := st.Files(); len(list) != 1 || list[0].Name != "null" {
		t.Errorf("kept: %v", list)
	}
	up.RemoveFile("null")
	flush(t)
	if list := st.Files(); len(list) != 0 {
		t.Errorf("kept: %v", list)
	}

	// The watchdog is told as long as all is well.
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	asked, before := 0, s.State().Messages
	up.Watchdog(ctx, func(context.Context) error {
		if asked++; asked == 4 {
			cancel()
		}
		if asked == 2 {
			return errors.New("unwell")
		}
		return nil
	})
	flush(t)
	// Twice of four times: once it was unwell, once it was over; and the barrier.
	if got := s.State(); got.Ping.IsZero() || got.Messages != before+3 {
		t.Errorf("%d messages, %d before: %+v", got.Messages, before, got)
	}

	t.Setenv("NOTIFY_SOCKET", "")
	if none := Up(log); none != nil {
		t.Error("a way to systemd without its socket")
	} else {
		none.Ready()
		none.Status("x")
		none.Watchdog(t.Context(), nil)
		none.StoreFile(Named{"x", null})
	}
}

func TestSystemdNotify(t *testing.T) {
	prog, err := exec.LookPath("systemd-notify")
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip("systemd-notify is not installed (Debian package systemd)")
	}
	// It may speak in the name of its parent, when it is allowed to.
	var parts sync.Map
	parts.Store(os.Getpid(), true)
	s := listen(t, Options{Belongs: func(pid int) bool { _, ok := parts.Load(pid); return ok }})
	run := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, prog, args...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		parts.Store(cmd.Process.Pid, true)
		s.Attach()
		// It waits for its barrier.
		if err := cmd.Wait(); err != nil {
			t.Fatalf("systemd-notify %q: %v: %s", args, err, out.String())
		}
	}
	run("--ready", "--status=from systemd-notify", "MAINPID=4321")
	if st := s.State(); !st.Ready || st.Status != "from systemd-notify" || st.MainPID != 4321 {
		t.Errorf("state %+v", st)
	}
	run("WATCHDOG_USEC=7000000", "STOPPING=1")
	if st := s.State(); !st.Stopping || st.Watchdog != 7*time.Second {
		t.Errorf("state %+v", st)
	}
}

func TestSocketActivate(t *testing.T) {
	prog, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip("systemd-socket-activate is not installed (Debian package systemd)")
	}
	socket := sockdir.New(t) + "/s"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, prog, "--listen="+socket, "--fdname=web", "-E", answerEnv+"=1", os.Args[0])
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	for conn == nil && ctx.Err() == nil {
		if conn, err = net.Dial("unix", socket); err != nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if conn == nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "this is web" {
		t.Errorf("answered %q, %v", got, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}
