//go:build linux

package supervisor

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/proxy"
)

// forwarders are the helper processes of a supervisor.
func forwarders(t *testing.T, supervisor int) (pids []int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		line, err := os.ReadFile(name)
		if err != nil || string(line) != "upkeep-proxy\x00" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(name), "stat"))
		_, rest, ok := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); err == nil && ok && len(f) > 1 && f[1] == strconv.Itoa(supervisor) && f[0] != "Z" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// A kept connection asks for one thing after the other.
type keptConn struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func keepConn(t testing.TB, addr string) *keptConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &keptConn{t, c, bufio.NewReader(c)}
}

// ask returns the answer's first word, which is the service's version.
func (c *keptConn) ask() string {
	c.t.Helper()
	if err := c.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	version, _, _ := strings.Cut(string(body), " ")
	return version
}

// The proxy's helper process lives through updates of upkeep and goes on
// forwarding: connections stay, nothing is lost, and the next version gives it
// orders and starts another one when it dies.
func TestProxySelfUpdate(t *testing.T) {
	t.Parallel()
	b := newSelfBench(t, "")
	b.order.Self = append(b.order.Self, "v0.1.1")
	b.order.Releases = []string{"v1.0.1"}
	b.order.Config.Updates.Paused = true // goes when the test says so
	b.order.Config.Proxy.Listen = []proxy.Listen{{Name: "web", Address: b.addr, Mode: proxy.HTTP}}
	// Of a machine as slow as it may be.
	b.order.Config.Proxy.Hold, b.order.Config.Proxy.Drain = config.Duration(2*time.Minute), config.Duration(time.Minute)
	b.order.Config.Health.StartTime, b.order.Config.Health.Timeout = config.Duration(time.Minute), config.Duration(10*time.Second)
	env := slices.Clone(b.order.Config.Process.Env)
	i := slices.Index(env, envAddr+"="+b.addr)
	env[i] = envAddr + `={{.Addr "web"}}`
	b.order.Config.Process.Env = env
	b.begin()
	if s, err := b.client.Status(t.Context()); err != nil || s.Service.Handover.Mode != HandoverProxy {
		t.Fatalf("status %+v, %v", s.Service.Handover, err)
	}
	b.await("knowledge", func(s Status) bool {
		return s.Self.Plan != nil && s.Self.Plan.Candidate != nil && s.Plan.Candidate != nil
	})
	supervisor := b.cmd.Process.Pid
	helper := forwarders(t, supervisor)
	if len(helper) != 1 {
		t.Fatalf("helpers %v", helper)
	}
	kept := keepConn(t, b.addr)
	if v := kept.ask(); v != "v1.0.0" {
		t.Fatal(v)
	}
	b.ask(Action{Verb: VerbUpdate, Self: true})
	s := b.await("self-update", func(s Status) bool { return s.Self.Version == "v0.1.1" && s.Self.Update == nil })
	b.untouched(s)
	if now := forwarders(t, supervisor); !slices.Equal(now, helper) {
		t.Errorf("helpers %v; before the update of upkeep %v", now, helper)
	}
	if v := kept.ask(); v != "v1.0.0" {
		t.Errorf("on the connection of before: %q", v)
	}
	// The new upkeep replaces the service behind the helper.
	b.ask(Action{Verb: VerbUpdate})
	b.await("v1.0.1", func(s Status) bool { return s.Service.Version == "v1.0.1" && s.Update == nil })
	if v := kept.ask(); v != "v1.0.1" {
		t.Errorf("on the connection of before: %q", v)
	}
	b.ask(Action{Verb: VerbRollback})
	b.await("v1.0.0", func(s Status) bool { return s.Service.Version == "v1.0.0" && s.Update == nil })
	if n := b.failed.Load(); n != 0 {
		t.Errorf("%d of %d requests failed", n, b.asked.Load())
	}
	if now := forwarders(t, supervisor); !slices.Equal(now, helper) {
		t.Errorf("helpers %v; at first %v", now, helper)
	}
	// It dies: the upkeep that did not start it has another one go on.
	b.stop()
	if err := syscall.Kill(helper[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Who comes meanwhile waits; who had come to the dead one is cut off.
	if err := asked(b.addr, ""); err != nil && why(err) != "reset" && why(err) != "EOF" {
		t.Error(err)
	}
	b.await("another helper", func(Status) bool {
		now := forwarders(t, supervisor)
		return len(now) == 1 && now[0] != helper[0] && b.serves() == "v1.0.0"
	})
	// And it ends with upkeep.
	helper = forwarders(t, supervisor)
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.ends()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if len(alive(helper)) == 0 { // ended, whoever has to wait for it
			break
		}
		if time.Now().After(end) {
			t.Fatal("the helper outlives upkeep")
		}
	}
}
