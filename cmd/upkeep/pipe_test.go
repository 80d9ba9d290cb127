//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const envPipe = "UPKEEP_TEST_PIPE" // configuration file: be an upkeep

// Whoever reads upkeep's output may go: upkeep and the service stay, and a
// stop still ends both.
func TestOutputReaderGone(t *testing.T) {
	if file := os.Getenv(envPipe); file != "" {
		if err := run(context.Background(), file, "info", nil); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	dir := t.TempDir()
	written := filepath.Join(dir, "written")
	// It ends by itself, should nobody stop it.
	script := "#!/bin/sh\nfor i in $(seq 4000); do echo line; echo >>" + written + "; sleep 0.05; done\n"
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "upkeep.toml")
	cfg := fmt.Sprintf("state = %q\n[service]\npath = %q\n", filepath.Join(dir, "state"), filepath.Join(dir, "hello"))
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestOutputReaderGone$")
	cmd.Env = append(os.Environ(), envPipe+"="+file)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, if all is well
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.Close()
	lines := func() int {
		data, _ := os.ReadFile(written)
		return strings.Count(string(data), "\n")
	}
	until := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); lines() < n; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the service wrote %d lines; want %d", lines(), n)
			}
		}
	}
	until(1)
	r.Close()
	until(lines() + 5)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("upkeep ended with %v", err)
		}
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill()
		t.Error("upkeep does not end")
	}
	if n := lines(); n >= 4000 {
		t.Errorf("the service wrote all its %d lines", n)
	}
}
