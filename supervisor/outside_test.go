//go:build unix

package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/install"
)

// An outside runs supervisors as processes of their own and looks at them from
// the outside only.
type outside struct {
	*bench
	order order
	env   []string
	cmd   *exec.Cmd
	// command makes cmd; nil = as usual
	command func() *exec.Cmd
	out     said
	done    chan struct{}
}

// said is what was written to a file.
type said struct{ file string }

func (s said) String() string {
	data, err := os.ReadFile(s.file)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func newOutside(t *testing.T, behaviour string) *outside {
	t.Helper()
	o := &outside{bench: newBench(t, behaviour)}
	o.out.file = filepath.Join(t.TempDir(), "stderr")
	o.cfg.Health.Probation = config.Duration(100 * time.Millisecond)
	o.cfg.Health.Interval = config.Duration(20 * time.Millisecond)
	o.order.Config = o.cfg
	o.order.Releases = []string{"v1.0.1"}
	return o
}

func (o *outside) run() {
	o.t.Helper()
	data, err := json.Marshal(o.order)
	if err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "order"), data, 0o600); err != nil {
		o.t.Fatal(err)
	}
	o.cmd = exec.Command(os.Args[0])
	if len(o.order.Self) > 0 {
		o.cmd = exec.Command(filepath.Join(o.dir, "upkeep"))
	}
	if o.command != nil {
		o.cmd = o.command()
	}
	o.cmd.Env = append(append(os.Environ(), envSupervisor+"="+o.dir, fmt.Sprint(envTest, "=", os.Getpid())), o.env...)
	stderr, err := os.OpenFile(o.out.file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	defer stderr.Close()
	o.cmd.Stderr = stderr
	if err := o.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	cmd, done := o.cmd, make(chan struct{})
	o.done = done
	go func() {
		_ = cmd.Wait() // how it ended is not the question here
		close(done)
	}()
	o.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		for _, pid := range o.services() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

func (o *outside) kill() {
	_ = o.cmd.Process.Kill()
	<-o.done
}

// ends waits for the supervisor's own end.
func (o *outside) ends() {
	o.t.Helper()
	select {
	case <-o.done:
	case <-time.After(2 * time.Minute):
		o.t.Fatalf("upkeep does not end\n%s", o.out.String())
	}
}

// services lists the running processes of the service, by their environment.
func (o *outside) services() []int {
	var found []int
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		o.t.Fatal(err)
	}
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err == nil && bytes.Contains(env, []byte(envAddr+"="+o.addr+"\x00")) && bytes.Contains(env, []byte(envService+"=")) {
			var pid int
			fmt.Sscan(filepath.Base(filepath.Dir(name)), &pid)
			found = append(found, pid)
		}
	}
	return alive(found)
}

// settled waits until the supervisor says that nothing is under way, and checks
// from the outside that everybody tells the same: one process of the service,
// the version that answers, the one that the link and the status name, and
// the bytes of a complete binary.
func (o *outside) settled(what string, cond func(s Status) bool) Status {
	o.t.Helper()
	client := NewClient(filepath.Join(o.order.Config.State, "control.sock"))
	var last string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s, err := client.Status(o.t.Context())
		if err != nil {
			last = err.Error()
			continue
		}
		last = fmt.Sprintf("status %s %q %+v", s.Code, s.Summary, s.LastResult)
		if s.Update != nil && s.Code != CodeFailing || !s.Service.Running || !cond(s) {
			continue
		}
		served, services := o.serves(), o.services()
		last += fmt.Sprintf(", serves %q by %v", served, services)
		if served == "" {
			continue
		}
		if len(services) != 1 || services[0] != s.Service.Pid || served != s.Service.Version || o.target() != served {
			// Unless something has begun since the status was told.
			now, err := client.Status(o.t.Context())
			if err != nil || now.Update != nil || now.Service.Pid != s.Service.Pid || !now.Service.Running || now.Service.Version != s.Service.Version {
				continue
			}
			o.t.Fatalf("%s: link to %s, status says %s as %d, but %s\n%s", what, o.target(), s.Service.Version, s.Service.Pid, last, o.out.String())
		}
		want, _, err := install.Sum(os.Args[0])
		if err != nil {
			o.t.Fatal(err)
		}
		if got, _, err := install.Sum(s.Service.Binary); err != nil || got != want {
			o.t.Fatalf("%s: %s has the sum %s, %v; want %s", what, s.Service.Binary, got, err, want)
		}
		return s
	}
	o.t.Fatalf("%s: not settled: %s\n%s", what, last, o.out.String())
	return Status{}
}

// quiet is closed when the supervisor says that the update is over.
func (o *outside) quiet() <-chan struct{} {
	c, done := make(chan struct{}), o.done
	go func() {
		client := NewClient(filepath.Join(o.order.Config.State, "control.sock"))
		for {
			if s, err := client.Status(context.Background()); err == nil && s.Update == nil && s.Service.Version == "v1.0.1" {
				close(c)
				return
			}
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return c
}

func anyStatus(Status) bool { return true }
