//go:build linux

package process

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func sh(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs sh")
	}
	return path
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func runner(t *testing.T) *OS {
	t.Helper()
	return NewOS(t.TempDir(), slog.New(slog.DiscardHandler))
}

func TestExit(t *testing.T) {
	r := runner(t)
	for _, tc := range []struct {
		script string
		status int
		text   string
	}{
		{"exit 0", 0, "exited with status 0 after"},
		{"exit 7", 7, "exited with status 7 after"},
		{"kill -9 $$", 137, "was killed by signal 9 (killed) after"},
		{"kill -TERM $$", 143, "was killed by signal 15 (terminated) after"},
	} {
		p, err := r.Start(Spec{File: sh(t), Name: "sh", Args: []string{"-c", tc.script}, Stop: syscall.SIGTERM, Grace: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if got := p.Exit(); got.Status() != tc.status || !strings.HasPrefix(got.String(), tc.text) {
			t.Errorf("%s: %d, %s; want %d, %s", tc.script, got.Status(), got, tc.status, tc.text)
		}
		if err := p.Signal(syscall.SIGTERM); err == nil {
			t.Error("a process that has ended took a signal")
		}
	}
	if _, err := r.Start(Spec{File: "/nonexistent", Name: "x"}); err == nil {
		t.Error("started what isn't there")
	}
}

func TestStop(t *testing.T) {
	for _, tc := range []struct {
		script string
		killed bool
	}{
		{"trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", false},
		{"trap '' TERM; echo ready; while :; do sleep 0.01; done", true},
		// Children in the group, and one in a session of its own.
		{"sleep 1000 & setsid sleep 1000 & trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", false},
	} {
		r := runner(t)
		var out safeBuffer
		grace := time.Minute // what ends by itself has all the time it needs
		if tc.killed {
			grace = 500 * time.Millisecond
		}
		p, err := r.Start(Spec{File: sh(t), Name: "sh", Args: []string{"-c", tc.script}, Env: os.Environ(), Stop: syscall.SIGTERM,
			Grace: grace, Output: NewOutput(&out, &out)})
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(2 * time.Minute); !strings.Contains(out.String(), "ready"); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: it does not start: %q", tc.script, out.String())
			}
		}
		killed, err := p.Stop(context.Background())
		if err != nil || killed != tc.killed {
			t.Errorf("%s: killed %v, %v; want %v", tc.script, killed, err, tc.killed)
		}
		if left := markedProcesses(r.mark); len(left) > 0 {
			t.Errorf("%s: processes %v are left", tc.script, left)
		}
	}
}

// What an earlier supervisor left running is ended, by process id and by mark,
// and nothing else is.
func TestRecover(t *testing.T) {
	r := runner(t)
	// Its own: these tests may run more than once at a time.
	mark := fmt.Sprint("test-mark-of-another-", os.Getpid(), "-", rand.Uint64())
	start := func() *exec.Cmd {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = append(os.Environ(), markName+"="+mark)
		if err := cmd.Start(); err != nil {
			t.Skip(err)
		}
		return cmd
	}
	ended := func(cmd *exec.Cmd, within time.Duration) bool {
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
			return true
		case <-time.After(within):
			_ = cmd.Process.Kill()
			<-done
			return false
		}
	}
	if said, err := r.Recover(); err != nil || said != "" {
		t.Errorf("without a record: %q, %v", said, err)
	}
	// A pipe in its place keeps nobody waiting.
	if err := syscall.Mkfifo(r.recordFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Recover(); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a pipe: %v", err)
	}
	// Known by its mark only: killed between start and record.
	cmd := start()
	if err := r.write(record{Mark: mark}); err != nil {
		t.Fatal(err)
	}
	if said, err := r.Recover(); err != nil || !strings.Contains(said, fmt.Sprint(cmd.Process.Pid)) || !ended(cmd, 2*time.Minute) {
		t.Errorf("by mark: %q, %v", said, err)
	}
	// The id is somebody else's by now: another start time.
	cmd = start()
	rec := describe(cmd.Process.Pid, "a mark that nobody has")
	rec.Start++
	if err := r.write(rec); err != nil {
		t.Fatal(err)
	}
	if said, err := r.Recover(); err != nil || said != "" || ended(cmd, 300*time.Millisecond) {
		t.Errorf("another process with the id: %q, %v", said, err)
	}
	// Another boot: ids and marks mean nothing.
	cmd = start()
	rec = describe(cmd.Process.Pid, mark)
	rec.Boot = "another"
	if err := r.write(rec); err != nil {
		t.Fatal(err)
	}
	if said, err := r.Recover(); err != nil || said != "" || ended(cmd, 300*time.Millisecond) {
		t.Errorf("another boot: %q, %v", said, err)
	}
	// A disk without room for another file: the record before makes room.
	full := r.recordFile() + ".tmp-"
	if err := os.MkdirAll(filepath.Join(full, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd = start()
	if err := r.write(describe(cmd.Process.Pid, mark)); err != nil {
		t.Fatal(err)
	}
	if said, err := r.Recover(); err != nil || said == "" || !ended(cmd, 2*time.Minute) {
		t.Errorf("a process noted on a full disk: %q, %v", said, err)
	}
	if err := os.Remove(r.recordFile()); err != nil {
		t.Fatal(err)
	}
	if err := r.write(record{}); err == nil || !strings.Contains(err.Error(), "noting the service's process") {
		t.Errorf("nothing could be noted: %v", err)
	}
	if err := os.WriteFile(r.recordFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Recover(); err == nil {
		t.Error("a damaged record is not said")
	}
}

func TestOutput(t *testing.T) {
	var out, errOut safeBuffer
	o := NewOutput(&out, &errOut)
	for i := range keepLines + 50 {
		o.keep(&out, []byte(fmt.Sprintf("line %d\n", i)))
	}
	o.keep(&out, []byte("cut "))
	o.keep(&errOut, []byte(strings.Repeat("x", 3*keepLineLen)+"\n"))
	o.keep(&out, []byte("off\nunfinished"))
	got := o.Lines(3)
	if len(got) != 3 || got[0] != fmt.Sprintf("line %d", keepLines+49) || len(got[1]) != keepLineLen || got[2] != "cut off" {
		t.Errorf("lines %.60q", got)
	}
	if all := o.Lines(1 << 30); len(all) != keepLines {
		t.Errorf("%d lines are kept; want %d", len(all), keepLines)
	}
	if len(o.Lines(-1)) != 0 {
		t.Error("lines for -1")
	}
}

func TestCommand(t *testing.T) {
	r := runner(t)
	shell := sh(t)
	for _, tc := range []struct {
		script  string
		timeout time.Duration
		code    int
		out     string
		err     string
	}{
		{"echo $FACT; echo loud >&2; exit 75", time.Minute, 75, "a fact\nloud\n", ""},
		{"yes | head -c 100000; exit 3", time.Minute, 3, "y\ny\n", ""},
		{"sleep 1000", 500 * time.Millisecond, -1, "", "took longer than"},
		{"yes", 500 * time.Millisecond, -1, "", "took longer than"},
		{"echo", 1, -1, "", "took longer than"},
	} {
		code, out, err := r.Command(t.Context(), []string{shell, "-c", tc.script}, []string{"FACT=a fact"}, tc.timeout)
		if code != tc.code || !strings.HasPrefix(out, tc.out) || len(out) > maxCommandOutput {
			t.Errorf("%s: %d, %.40q", tc.script, code, out)
		}
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v; want %q", tc.script, err, tc.err)
		}
	}
	if _, _, err := r.Command(t.Context(), []string{"/nonexistent"}, nil, time.Second); err == nil {
		t.Error("ran what isn't there")
	}
}
