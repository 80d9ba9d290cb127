package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Reexec()
	os.Exit(m.Run())
}

func full(t *testing.T) Sandbox {
	t.Helper()
	sb, err := New(Config{})
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return sb
}

func TestRun(t *testing.T) {
	sb := full(t)
	var out bytes.Buffer
	mounts := []Mount{{"/usr", "/usr", false}, {"/lib", "/lib", false}, {"/lib64", "/lib64", false}}
	err := sb.Run(t.Context(), Job{Args: []string{"/usr/bin/env"}, Env: []string{"A=b"}, Mounts: mounts, Output: &out})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = time.Second
	_ = context.Background
	_ = errors.Is
}
