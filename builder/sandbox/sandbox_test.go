//go:build linux

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Reexec()
	os.Exit(m.Run())
}

func full(t testing.TB) *bwrap {
	t.Helper()
	sb, err := New(Config{})
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return sb.(*bwrap)
}

// enterable returns a folder that the user of builds can enter.
func enterable(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "upkeep-sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

var shell = []Mount{{Source: "/bin", Target: "/bin"}, {Source: "/usr", Target: "/usr"}}

// run runs a shell script in the sandbox.
func run(t testing.TB, b *bwrap, script string, job Job) (string, error) {
	t.Helper()
	mounts := shell
	for _, dir := range []string{"/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil && len(b.libs) == 0 {
			mounts = append(mounts[:len(mounts):len(mounts)], Mount{Source: dir, Target: dir})
		}
	}
	var out bytes.Buffer
	job.Args = []string{"/bin/sh", "-c", script}
	job.Mounts = append(mounts[:len(mounts):len(mounts)], job.Mounts...)
	job.Output = &out
	err := b.Run(t.Context(), job)
	return out.String(), err
}

func TestEnvironment(t *testing.T) {
	b := full(t)
	t.Setenv("UPKEEP_SECRET", "x")
	out, err := run(t, b, "env; pwd", Job{Env: []string{"A=b c"}})
	if err != nil {
		t.Fatal(err, out)
	}
	if !strings.Contains(out, "A=b c\n") || strings.Contains(out, "UPKEEP_SECRET") || !strings.HasSuffix(out, "/tmp\n") {
		t.Errorf("environment and folder: %s", out)
	}
}

func TestExit(t *testing.T) {
	b := full(t)
	var exit *ExitError
	if out, err := run(t, b, "echo said; exit 3", Job{}); !errors.As(err, &exit) || exit.Code != 3 || out != "said\n" {
		t.Errorf("exit: %v, %q", err, out)
	}
	// What outlives its limit outlives the test.
	if _, err := run(t, b, "sleep 100000 & sleep 100000", Job{Limits: Limits{Wall: 100 * time.Millisecond}}); !errors.Is(err, ErrTimeout) {
		t.Errorf("wall clock: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	because := errors.New("because")
	time.AfterFunc(100*time.Millisecond, func() { cancel(because) })
	var out bytes.Buffer
	if err := b.Run(ctx, Job{Args: []string{innerPath, reexecSleep}, Output: &out}); !errors.Is(err, because) {
		t.Errorf("cancelled: %v", err)
	}
}

// A file that the server was started with, and that its children would get, is
// not the command's.
func TestInheritedFiles(t *testing.T) {
	b := full(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	out, err := run(t, b, fmt.Sprintf("echo /proc/self/fd/* /proc/1/fd/*; [ ! -e /proc/self/fd/%d ] && [ ! -e /proc/1/fd/%d ]", fd, fd), Job{})
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Landlock confines a thread: the one that becomes the command must be the one
// that was confined.
func TestConfinedThread(t *testing.T) {
	b := full(t)
	if b.Tool() == "" {
		t.Skip("no Landlock")
	}
	dir := enterable(t)
	if err := b.Own(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		// Bubblewrap lets it make a pipe in its own folder.
		out, err := run(t, b, "mkfifo /w/pipe || exit 7", Job{Env: []string{hopEnv + "=1", "PATH=/bin:/usr/bin"}, Mounts: []Mount{{Source: dir, Target: "/w", Write: true}}})
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != 7 {
			t.Fatalf("it made a pipe: %v %s", err, out)
		}
	}
}

const hopEnv = "UPKEEP_TEST_HOP"

func init() {
	beforeCommand = func() {
		if os.Getenv(hopEnv) == "" {
			return
		}
		var spins atomic.Int64
		for range 2 * runtime.NumCPU() {
			go func() {
				for {
					spins.Add(1)
				}
			}()
		}
		for range 15 {
			time.Sleep(100 * time.Microsecond)
			runtime.Gosched()
		}
	}
}

// A process left behind ends with the command.
func TestLeftBehind(t *testing.T) {
	b := full(t)
	dir := enterable(t)
	if err := b.Own(dir); err != nil {
		t.Fatal(err)
	}
	w := Mount{Source: dir, Target: "/w", Write: true}
	if out, err := run(t, b, "(while :; do echo >> /w/alive; done) >/dev/null 2>&1 & while [ ! -s /w/alive ]; do sleep 0.05; done", Job{Mounts: []Mount{w}}); err != nil {
		t.Fatal(err, out)
	}
	size := func() int64 {
		fi, err := os.Stat(filepath.Join(dir, "alive"))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	if before := size(); before == 0 || size() != before {
		t.Errorf("it goes on: %d, then %d bytes", before, size())
	}
}

func TestMemory(t *testing.T) {
	b := full(t)
	if b.cgroups == nil {
		t.Skip("no control groups")
	}
	var out bytes.Buffer
	err := b.Run(t.Context(), Job{Args: []string{innerPath, reexecEat}, Limits: Limits{Memory: 128 << 20}, Output: &out})
	// Either the group's limit or the process's own is met first.
	var exit *ExitError
	if !errors.Is(err, ErrMemory) && !errors.As(err, &exit) {
		t.Errorf("it could have 4 GiB: %v %s", err, out.String())
	}
}

func TestProbe(t *testing.T) {
	b := full(t)
	if err := b.Probe(t.Context(), enterable(t)); err != nil {
		t.Error(err)
	}
}

// The probe finds what is open: a test of the test.
func TestProbeFinds(t *testing.T) {
	b := full(t)
	dir := enterable(t)
	leaky := filepath.Join(dir, "bwrap")
	// A bubblewrap that shares the network, and does not make folders read-only.
	script := fmt.Sprintf("#!/bin/bash\nargs=()\nfor a in \"$@\"; do\n[ \"$a\" = --unshare-net ] && continue\n[ \"$a\" = --ro-bind ] && a=--bind\nargs+=(\"$a\")\ndone\nexec %s \"${args[@]}\"\n", b.path)
	if err := os.WriteFile(leaky, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	open := &bwrap{path: leaky, exe: b.exe, user: b.user, cgroups: b.cgroups, libs: b.libs, missing: []string{Landlock}}
	err := open.Probe(t.Context(), dir)
	if err == nil {
		t.Fatal("no attack succeeded in an open sandbox")
	}
	for _, want := range []string{"write to a read-only folder", "TCP to the server", "UDP to the server"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among: %v", want, err)
		}
	}
}

func TestToolFolders(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"/goroot/pkg/tool/x/compile -o /w/go-build1/b002/_pkg_.a -trimpath x -p y", "/w/go-build1/b002"},
		{"compile -V=full", ""},
		{"compile -o=/w/go-build1/b002/_pkg_.a", "/w/go-build1/b002"},
		{"link -o /w/go-build1/b001/exe/a.out", "/w/go-build1/b001"},
		{"/t/pack r /w/go-build1/b002/_pkg_.a /w/go-build1/b002/x.o", "/w/go-build1/b002"},
		{"asm -o /etc/passwd", ""},
		{"asm -o /w/go-build1/../../etc/b1/x", ""},
		{"asm -o relative/go-build1/b1/x", ""},
		{"asm -o", ""},
		{"asm -o /w/go-build1/b1", ""},
		{"asm -- -o /w/go-build1/b002/x", ""},
	} {
		args := strings.Fields(tc.args)
		if got := strings.Join(toolFolders(args), " "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.args, got, tc.want)
		}
	}
}

// A tool changes its own package's folder and nothing else, not even in the
// folder that its build may write to.
func TestTool(t *testing.T) {
	b := full(t)
	dir := enterable(t)
	for _, sub := range []string{"go-build1/b001", "go-build1/b002", "cache"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Own(dir); err != nil {
		t.Fatal(err)
	}
	w := []Mount{{Source: dir, Target: "/w", Write: true}}
	script := "echo x >/w/go-build1/b001/own; echo x >/w/go-build1/b002/other; echo x >/w/cache/planted; mv /w/go-build1/b001/own /w/cache/moved; ln /w/go-build1/b001/own /w/cache/linked; kill -9 1; true"
	out, err := run(t, b, "exec "+b.Tool()+" /bin/sh -c '"+script+"' -o /w/go-build1/b001/_pkg_.a", Job{Mounts: w})
	if err != nil {
		t.Fatal(err, out)
	}
	for name, want := range map[string]bool{"go-build1/b001/own": true, "go-build1/b002/other": false, "cache/planted": false, "cache/moved": false, "cache/linked": false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
