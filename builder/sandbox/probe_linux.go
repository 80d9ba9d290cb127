package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Probe runs an attack program of ours in the sandbox and returns an error
// when any attack succeeds: settings say what should hold, this says what
// does. dir is a folder of the server, under which builds run later; the probe
// cleans up behind it.
func (b *bwrap) Probe(ctx context.Context, dir string) error {
	tmp, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return fmt.Errorf("probing the sandbox: %w", err)
	}
	defer os.RemoveAll(tmp)
	// The outside of the attack.
	secret := filepath.Join(tmp, "secret")
	readOnly, writable := filepath.Join(tmp, "ro"), filepath.Join(tmp, "rw")
	err = errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Chmod(tmp, 0o755), os.Mkdir(readOnly, 0o755), os.Mkdir(writable, 0o755), b.Own(readOnly), b.Own(writable))
	if err != nil {
		return fmt.Errorf("probing the sandbox: %w", err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("probing the sandbox: %w", err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("probing the sandbox: %w", err)
	}
	defer udp.Close()
	go func() { // says so when something arrives
		buf := make([]byte, 16)
		for {
			_, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte("y"), from) // the probe waits for it
		}
	}()
	name := "@upkeep-probe-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(tmp)
	socket, err := net.Listen("unix", name)
	if err != nil {
		return fmt.Errorf("probing the sandbox: %w", err)
	}
	defer socket.Close()

	limits := Limits{Wall: 30 * time.Second, Memory: 512 << 20, Processes: 64, FileSize: 32 << 20, TmpSize: 16 << 20}
	plan, err := json.Marshal(attackPlan{Secret: secret, ReadOnly: "/ro", Writable: "/rw",
		TCP: tcp.Addr().String(), UDP: udp.LocalAddr().String(), Unix: name, Pid: os.Getpid(), FileSize: limits.FileSize})
	if err != nil {
		return fmt.Errorf("probing the sandbox: %w", err)
	}
	mounts := []Mount{{Source: readOnly, Target: "/ro"}, {Source: writable, Target: "/rw", Write: true}}
	var out bytes.Buffer
	err = b.Run(ctx, Job{Args: []string{innerPath, reexecAttack, string(plan)}, Mounts: mounts, Limits: limits, Output: &out})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if a, ok := strings.CutPrefix(strings.TrimSpace(line), attackMark); ok {
			got = append(got, a)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("the sandbox does not hold on this machine; a build could: %s", strings.Join(got, "; "))
	}
	if err != nil || !strings.Contains(out.String(), attackEnd) {
		return fmt.Errorf("the sandbox does not start: %w: %s%s", orNoEnd(err), firstLine(out.String()), b.advice(tmp))
	}
	if b.cgroups != nil {
		err := b.Run(ctx, Job{Args: []string{innerPath, reexecEat}, Mounts: mounts, Limits: limits, Output: &out})
		if err == nil {
			return errors.New("the sandbox does not hold on this machine; a build could use more memory than allowed")
		}
	}
	return nil
}

func orNoEnd(err error) error {
	if err == nil {
		return errors.New("the probe ended early")
	}
	return err
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

// advice says what most often is the reason that a sandbox does not start.
func (b *bwrap) advice(dir string) string {
	if b.user == 0 {
		return ""
	}
	for p := filepath.Dir(dir); p != "/" && p != "."; p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err == nil && fi.Mode().Perm()&0o001 == 0 {
			return fmt.Sprintf("; builds run as user %d, which can't enter %s (chmod o+x %s)", b.user, p, p)
		}
	}
	return ""
}
