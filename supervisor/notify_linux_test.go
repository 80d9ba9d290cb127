package supervisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/notify"
)

// What the services of these tests say.
func init() {
	say := func(text string) {
		if sent, err := daemon.SdNotify(false, text); !sent {
			fmt.Println("can't say anything:", err)
			os.Exit(6)
		}
	}
	testBehaviours["ready"] = func(version string) {
		say("READY=1\nWATCHDOG_USEC=0\nSTATUS=" + version + " serves\nMAINPID=1")
	}
	// It says everything but that it is ready.
	testBehaviours["busy"] = func(string) { say("STATUS=still reading\nEXTEND_TIMEOUT_USEC=1000") }
	// It promises signs of life and gives none.
	testBehaviours["mute"] = func(string) { say("READY=1") }
	// It has its supervisor keep something, and says what it finds.
	testBehaviours["keeps"] = func(version string) {
		found := "nothing"
		if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
			for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
				if name == "note" {
					text, err := io.ReadAll(os.NewFile(uintptr(3+i), "note"))
					found = fmt.Sprintf("%s %v", text, err)
				}
			}
		}
		fmt.Printf("%s found %s\n", version, found)
		f, err := os.CreateTemp("", "")
		if err != nil {
			panic(err)
		}
		os.Remove(f.Name())
		fmt.Fprintf(f, "the note of %s", version)
		f.Seek(0, io.SeekStart)
		up := notify.Up(slog.New(slog.DiscardHandler))
		up.RemoveFile("note")
		up.StoreFile(notify.Named{Name: "note", File: f})
		up.Ready()
	}
}

func notifyBench(t *testing.T, behaviour string) *bench {
	b := newBench(t, behaviour)
	b.deps.Notify = notify.Listen
	b.deps.Store = new(notify.Store)
	b.cfg.Health.StartTime = config.Duration(time.Minute)
	return b
}

func TestReadiness(t *testing.T) {
	b := notifyBench(t, "v1.0.0=ready v1.0.1=busy v1.0.2=ready v1.0.3=well")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	said := func() string {
		var st notify.State
		_ = b.engine.do(t.Context(), func() { st = b.engine.session(b.engine.proc).State() })
		if st.MainPID > 1 {
			t.Errorf("state %+v", st)
		}
		return st.Status
	}
	if got := said(); got != "v1.0.0 serves" {
		t.Errorf("the service said %q", got)
	}
	// Healthy by its address, but not ready by its own word, as the one before was.
	cfg := b.cfg
	cfg.Health.StartTime = config.Duration(4 * time.Second)
	b.engine.cfg.Store(&cfg)
	b.publish("v1.0.1")
	s := b.until("roll-back", func(s Status, v string) bool { return v == "v1.0.0" && s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultRolledBack || !strings.Contains(s.LastResult.Reason, "READY=1") || !strings.Contains(s.LastResult.Reason, "still reading") {
		t.Errorf("result %+v", s.LastResult)
	}
	b.patient()
	b.publish("v1.0.1", "v1.0.2")
	b.until("update", func(s Status, v string) bool {
		return v == "v1.0.2" && s.Update == nil && s.Service.Says == "v1.0.2 serves"
	})
	if got := said(); got != "v1.0.2 serves" {
		t.Errorf("the service said %q", got)
	}
}

func TestReadinessIsNotWaitedFor(t *testing.T) {
	b := notifyBench(t, "") // versions that don't speak
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	b.publish("v1.0.1")
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })

	b = notifyBench(t, "v1.0.0=ready")
	b.cfg.Process.Notify = notifyReady
	b.cfg.Health.StartTime = config.Duration(4 * time.Second)
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	b.publish("v1.0.1")
	s := b.until("roll-back", func(s Status, v string) bool { return v == "v1.0.0" && s.LastResult != nil && s.Update == nil })
	if !strings.Contains(s.LastResult.Reason, "READY=1") {
		t.Errorf("result %+v", s.LastResult)
	}
}

func TestServiceWatchdog(t *testing.T) {
	b := notifyBench(t, "v1.0.0=ready v1.0.1=mute")
	b.cfg.Process.Watchdog = config.Duration(300 * time.Millisecond)
	b.cfg.Health.Probation = config.Duration(time.Minute)
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	b.publish("v1.0.1")
	s := b.until("roll-back", func(s Status, v string) bool { return v == "v1.0.0" && s.LastResult != nil && s.Update == nil })
	if s.LastResult.Result != ResultRolledBack || !strings.Contains(s.LastResult.Reason, "WATCHDOG=1") {
		t.Errorf("result %+v", s.LastResult)
	}
	b.stop()

	// Outside an update it is ended and started again.
	b = notifyBench(t, "v1.0.0=mute")
	b.cfg.Process.Watchdog = config.Duration(300 * time.Millisecond)
	b.start()
	s = b.until("restart", func(s Status, v string) bool { return v == "v1.0.0" && s.Service.Restarts > 0 })
	found := false
	for _, e := range s.Events {
		found = found || e.Kind == "watchdog"
	}
	if !found {
		t.Errorf("events %+v", s.Events)
	}
}

func TestServiceKeepsDescriptors(t *testing.T) {
	b := notifyBench(t, "v1.0.0=keeps v1.0.1=keeps")
	b.start()
	b.until("first start", func(s Status, v string) bool { return v == "v1.0.0" })
	b.publish("v1.0.1")
	b.until("update", func(s Status, v string) bool { return v == "v1.0.1" && s.Update == nil })
	b.said("v1.0.0 found nothing")
	b.said("v1.0.1 found the note of v1.0.0 <nil>")
}

func TestTellSystemd(t *testing.T) {
	systemd, err := notify.Listen(notify.Options{Belongs: func(pid int) bool { return pid == os.Getpid() }})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	systemd.Attach()
	t.Setenv("NOTIFY_SOCKET", strings.TrimPrefix(systemd.Env()[0], "NOTIFY_SOCKET="))
	t.Setenv("WATCHDOG_USEC", "100000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))

	b := notifyBench(t, "v1.0.0=ready v1.0.1=ready")
	b.cfg.Process.Notify = notifyReady
	b.start()
	stopping, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.engine.TellSystemd(t.Context(), stopping, notify.Up(b.deps.Log))
	}()
	until := func(what string, cond func(notify.State) bool) {
		t.Helper()
		for deadline := time.After(2 * time.Minute); !cond(systemd.State()); {
			select {
			case <-systemd.Changed():
			case <-deadline:
				t.Fatalf("no %s: %+v", what, systemd.State())
			}
		}
	}
	until("readiness", func(s notify.State) bool { return s.Ready && !s.Ping.IsZero() && s.Status == "hello v1.0.0 ok" })
	if st := systemd.State(); st.MainPID != 0 || st.Stopping {
		t.Errorf("what the service says of itself goes up: %+v", st)
	}
	b.publish("v1.0.1")
	b.until("update tried", func(s Status, v string) bool { return s.LastResult != nil && s.Update == nil })
	stop()
	until("stopping", func(s notify.State) bool { return s.Stopping && s.Extended.After(time.Now()) })
	b.stop()
	<-done
}

func TestStatusLine(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.Local) // a Wednesday
	base := Status{Now: now, Code: CodePending, Service: ServiceStatus{Name: "go-httpbin", Version: "v2.26.0", Running: true}}
	for want, change := range map[string]func(*Status){
		"go-httpbin v2.26.0 ok":                                    func(s *Status) {},
		"go-httpbin v2.26.0 ok; next v2.27.0 Sun 02:10":            func(s *Status) { s.Plan.Candidate.When = now.Add(86*time.Hour + 10*time.Minute) },
		"go-httpbin v2.26.0 ok; next v2.27.0 Sun 22 Mar 13:00":     func(s *Status) { s.Plan.Candidate.When = time.Date(2026, 3, 22, 13, 0, 0, 0, time.Local) },
		"go-httpbin v2.26.0 ok; v2.27.0 waits for an order":        func(s *Status) { s.Plan.Automatic = false },
		"go-httpbin v2.26.0 ok; v2.27.0 waits, updates are paused": func(s *Status) { s.Paused = true },
		"go-httpbin v2.26.0; to v2.27.0: building":                 func(s *Status) { s.Update = &UpdateProgress{To: Pair{Version: "v2.27.0"}, Step: "building"} },
		"go-httpbin v2.26.0 is down":                               func(s *Status) { s.Service.Running = false },
		"go-httpbin v2.26.0 runs. Updates are off: no space":       func(s *Status) { s.Code, s.Summary = CodeFailing, "Updates are off: no space" },
	} {
		s := base
		if want != "go-httpbin v2.26.0 ok" {
			s.Plan = Plan{Automatic: true, Candidate: &Candidate{Pair: Pair{Version: "v2.27.0"}}}
		}
		change(&s)
		if got := statusLine(&s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
