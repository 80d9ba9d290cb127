package process

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/supervisor/cgroup"
)

// v2 returns a new group of the version 2 hierarchy, or skips.
func v2(t *testing.T) string {
	t.Helper()
	missing := func(why string) {
		t.Helper()
		if os.Getenv("UPKEEP_TEST_FULL") == "1" && os.Getuid() == 0 {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	at := t.TempDir()
	if err := syscall.Mount("none", at, "cgroup2", 0, ""); err != nil {
		missing("no cgroup2 hierarchy can be mounted (it needs root): " + err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
	dir, err := os.MkdirTemp(at, "upkeep-test-")
	if err != nil {
		missing("no control group can be made: " + err.Error())
	}
	t.Cleanup(func() { _ = cgroup.Kill(dir) })
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		missing("the kernel has no cgroup.kill")
	}
	return dir
}

func TestControlGroup(t *testing.T) {
	dir := v2(t)
	r := NewOS(t.TempDir(), slog.New(slog.DiscardHandler))
	// The service ends at the signal; what it started ignores it, in a session of its own.
	ready := filepath.Join(t.TempDir(), "ready")
	p, err := r.Start(Spec{
		File: "/bin/sh", Name: "sh", Env: os.Environ(), Stop: syscall.SIGTERM, Grace: time.Minute, Cgroup: dir,
		Args: []string{"-c", `setsid sh -c 'trap "" TERM; echo $$ >"$0".tmp; mv "$0".tmp "$0"; while :; do sleep 1000; done' "$0" & wait`, ready},
	})
	if err != nil {
		t.Fatal(err)
	}
	for !exists(ready) {
		select {
		case <-p.Done():
			t.Fatal(p.Exit())
		case <-time.After(5 * time.Millisecond):
		}
	}
	if own, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err != nil || len(strings.Fields(string(own))) < 2 {
		t.Errorf("processes in the group: %q, %v", own, err)
	}
	if killed, err := p.Stop(context.Background()); killed || err != nil {
		t.Errorf("stop: %v, %v", killed, err)
	}
	if exists(dir) {
		t.Error("the group is still there")
	}

	// A group that can't be had is no reason not to run.
	p, err = r.Start(Spec{File: "/bin/true", Name: "true", Cgroup: filepath.Join(t.TempDir(), "none"), Grace: time.Minute, Stop: syscall.SIGTERM})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.Exit().Code != 0 {
		t.Error(p.Exit())
	}
	p, err = r.Start(Spec{File: "/bin/true", Name: "true", Cgroup: t.TempDir(), Grace: time.Minute, Stop: syscall.SIGTERM})
	if err != nil {
		t.Fatalf("a folder that is no group: %v", err)
	}
	<-p.Done()
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func TestPatience(t *testing.T) {
	r := NewOS(t.TempDir(), slog.New(slog.DiscardHandler))
	file := filepath.Join(t.TempDir(), "ready")
	// It ends only after it has been shown patience once.
	shown := file + ".shown"
	p, err := r.Start(Spec{
		File: "/bin/sh", Name: "sh", Env: os.Environ(), Stop: syscall.SIGTERM, Grace: 2 * time.Second,
		Args: []string{"-c", `trap 'while [ ! -e "$0.shown" ]; do sleep 0.01; done; exit 7' TERM; : >"$0"; while :; do sleep 0.01; done`, file},
		Patience: func() time.Time {
			_ = os.WriteFile(shown, nil, 0o600)
			return time.Now().Add(time.Hour)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for !exists(file) {
		select {
		case <-p.Done():
			t.Fatal(p.Exit())
		case <-time.After(5 * time.Millisecond):
		}
	}
	if killed, err := p.Stop(context.Background()); killed || err != nil || p.Exit().Code != 7 {
		t.Errorf("stop: %v, %v, %v", killed, err, p.Exit())
	}

	now := time.Now()
	s := Spec{Patience: func() time.Time { return now.Add(time.Hour) }}
	if got := s.patience(now.Add(time.Minute)); !got.Equal(now.Add(time.Minute)) {
		t.Errorf("patience has no bound: %v", got)
	}
	s.Patience = func() time.Time { return now.Add(time.Second) }
	if got := s.patience(now.Add(time.Minute)); !got.Equal(now.Add(time.Second)) {
		t.Errorf("patience is %v", got)
	}
}
