//go:build linux

package supervisor

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/process"
)

// handoverService builds the service of the load tests, once.
var handoverService = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "upkeep-handover-")
	if err != nil {
		return "", err
	}
	atExit = append(atExit, func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "service")
	cmd := exec.Command("go", "build", "-o", file, "./testdata/handover")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// scale is how much of the load tests is run: the whole takes minutes.
type scale struct {
	upgrades int
	start    time.Duration // that the service takes
	slow     time.Duration // that a slow request takes
	rate     int           // requests a second, of all kinds
	long     bool
}

func testScale() scale {
	if os.Getenv("UPKEEP_TEST_LONG") == "1" {
		return scale{20, time.Second, 2 * time.Second, 200, true}
	}
	return scale{3, 300 * time.Millisecond, 500 * time.Millisecond, 60, false}
}

// A crowd is the service of the load tests under a supervisor, and its clients.
type crowd struct {
	*bench
	scale scale
	addrs map[string]string
}

func newCrowd(t *testing.T, handover string, s scale) *crowd {
	t.Helper()
	file, err := handoverService()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, "")
	b.program = file
	if err := os.Remove(filepath.Join(b.dir, "hello-v1.0.0-"+testGo)); err != nil {
		t.Fatal(err)
	}
	b.place("v1.0.0")
	c := &crowd{bench: b, scale: s, addrs: map[string]string{}}
	b.cfg.Process.Handover = handover
	b.cfg.Process.Env = []string{"START=" + s.start.String(), fmt.Sprint("LIFELINE=", os.Getpid())}
	for _, name := range []string{"HTTP", "HTTP2", "TLS", "UDP"} {
		c.addrs[name] = freeAddr(t)
		b.cfg.Process.Env = append(b.cfg.Process.Env, name+"="+c.addrs[name])
	}
	b.addr = c.addrs["HTTP"]
	b.cfg.Process.Grace = config.Duration(time.Minute)
	b.cfg.Health.URL = "http://" + b.addr + "/"
	b.cfg.Health.StartTime = config.Duration(time.Minute)
	b.cfg.Health.Timeout = config.Duration(10 * time.Second)
	b.cfg.Health.Failures = 10
	// Who waited comes all at once, and is served before the next upgrade.
	b.cfg.Health.Probation = config.Duration(s.start)
	return c
}

// strict are the kinds of which nothing may be lost by a service that drains.
var strict = []string{"new", "second", "slow", "TLS", "UDP"}

// clients are all kinds, at a fifth of the rate for the odd ones.
func (c *crowd) clients() []*client {
	h, n := "http://"+c.addrs["HTTP"]+"/", max(1, c.scale.rate/10)
	post := func(ctx context.Context, n int) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodPost, h, strings.NewReader(strings.Repeat("x", n%5000)))
	}
	return []*client{
		httpClient("new", 3*n, h, newConns(), nil),
		httpClient("second", n, "http://"+c.addrs["HTTP2"]+"/", newConns(), nil),
		httpClient("slow", max(3, n/4), h+"?take="+c.scale.slow.String(), newConns(), nil),
		httpClient("keep GET", 2*n, h, keptConns(), nil),
		httpClient("keep POST", n, h, keptConns(), post),
		httpClient("TLS", n, "https://"+c.addrs["TLS"]+"/", tlsConns(false, false), nil),
		httpClient("HTTP/2", n, "https://"+c.addrs["TLS"]+"/", tlsConns(true, true), nil),
		udpClient(n, c.addrs["UDP"]),
	}
}

// upgrade goes through versions under load.
func (c *crowd) upgrade() {
	c.t.Helper()
	for i := range c.scale.upgrades {
		version := fmt.Sprintf("v1.0.%d", i+1)
		c.publish(version)
		c.await(version)
	}
}

// await waits until a version has replaced the one before.
func (c *crowd) await(version string) Status {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s := c.state()
		if s.Service.Version == version && s.Update == nil && s.LastResult != nil {
			if s.LastResult.Result != ResultInstalled {
				c.t.Fatalf("%s: %+v", version, s.LastResult)
			}
			return s
		}
		if time.Now().After(end) {
			c.t.Fatalf("no %s: %s %q, last result %+v, update %+v", version, s.Code, s.Summary, s.LastResult, s.Update)
		}
	}
}

func needTelling(t *testing.T) {
	t.Helper()
	if err := process.CanTellBinds("/proc/self/exe"); err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// A loss is what a test allows of one kind of requests. On a machine that is busy
// with other tests a process may not come to run for longer than new
// connections are held off before the stop signal, so the short variant only
// demands that nobody is refused or forgotten, and that most are served.
type loss struct {
	perUpgrade int
	share      float64
}

func (s scale) loss(quiet int) loss {
	if s.long && os.Getuid() == 0 { // others can't hold connections off
		return loss{quiet, 0}
	}
	return loss{3, .2}
}

// A handoverCase is a mode of which the service knows nothing, or that systemd
// has too.
type handoverCase struct {
	name, mode string
	env        []string
	sockets    bool
	effective  string
	allowed    int // per upgrade, of each kind that is strict
}

// plainTCP has new connections held off.
const plainTCP = "GODEBUG=multipathtcp=0"

var handoverCases = []handoverCase{
	{"retain", HandoverAuto, []string{plainTCP}, false, HandoverRetain, 0},
	{"retain multipath", HandoverRetain, nil, false, HandoverRetain, 1},
	{"listen-fds", HandoverAuto, nil, true, HandoverListenFDs, 0},
}

// crowd puts a service in this mode.
func (tc handoverCase) crowd(t *testing.T, s scale, env ...string) *crowd {
	t.Helper()
	c := newCrowd(t, tc.mode, s)
	c.cfg.Process.Env = append(append(c.cfg.Process.Env, tc.env...), env...)
	if !tc.sockets {
		return c
	}
	for name, addr := range c.addrs {
		network := "tcp"
		if name == "UDP" {
			network = "udp"
		}
		c.cfg.Process.Sockets = append(c.cfg.Process.Sockets, SocketConfig{Name: name, Network: network, Address: addr})
	}
	return c
}

// underLoad upgrades the crowd's service and returns what became of its clients.
func (tc handoverCase) underLoad(c *crowd, title string) *load {
	c.t.Helper()
	c.start()
	c.until("first start", func(s Status, v string) bool { return v != "" && s.Service.Running })
	l := startLoad(c.t, c.clients()...)
	c.upgrade()
	st := c.state().Service.Handover
	l.report(fmt.Sprintf("%s: %d upgrades, %v start-up", title, c.scale.upgrades, c.scale.start))
	if st.Mode != tc.effective || len(st.Sockets) != 4 || len(st.Warnings) > 0 && os.Getuid() == 0 {
		c.t.Errorf("status %+v", st)
	}
	return l
}

// Upgrades under load, in each mode, of a service that shuts down at once.
func TestHandover(t *testing.T) {
	needTelling(t)
	for _, tc := range handoverCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := testScale()
			l := tc.underLoad(tc.crowd(t, s), tc.name)
			allowed := s.loss(tc.allowed)
			l.within(allowed.perUpgrade*s.upgrades, allowed.share, strict...)
			// A request on a connection that the old process is closing at that
			// moment is lost, and only its client can know that.
			l.within((allowed.perUpgrade+2)*s.upgrades, allowed.share, "keep GET", "keep POST", "HTTP/2")
		})
	}
	// That the load would see a gap.
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		restartUnderLoad(t, "restart")
	})
}

// restartUnderLoad checks that clients are refused without a handover.
func restartUnderLoad(t *testing.T, title string, env ...string) {
	t.Helper()
	s := testScale()
	s.upgrades = min(s.upgrades, 2)
	c := newCrowd(t, HandoverRestart, s)
	c.cfg.Process.Env = append(c.cfg.Process.Env, env...)
	c.start()
	c.until("first start", func(s Status, v string) bool { return v != "" && s.Service.Running })
	clients := c.clients()
	for _, cl := range clients {
		cl.wait = 5 * time.Second // datagrams are lost without a word
	}
	l := startLoad(t, clients...)
	c.upgrade()
	l.report(fmt.Sprintf("%s: %d upgrades, %v start-up", title, s.upgrades, s.start))
	if l.clients[0].failed["refused"] == 0 {
		t.Error("nobody was refused while nothing ran")
	}
}

// leave is how long a service takes leave that asks its clients to close their
// connections before it shuts down: they have to come by once in that time.
func (s scale) leave() string {
	if s.long {
		return "LEAVE=3s"
	}
	return "LEAVE=" + (300 * time.Millisecond).String()
}

// Upgrades of a service that takes leave of its clients: not one request of any
// kind is lost. CI has time for one mode.
func TestHandoverLeave(t *testing.T) {
	needTelling(t)
	for _, tc := range handoverCases {
		s := testScale()
		if !s.long && !tc.sockets {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := tc.underLoad(tc.crowd(t, s, s.leave()), tc.name+", taking leave")
			if s.long {
				l.must(0)
				return
			}
			allowed := s.loss(0) // who gets no processor for that long has not come by
			l.within(allowed.perUpgrade*s.upgrades, allowed.share)
		})
	}
}

// Taking leave alone is no handover.
func TestHandoverLeaveRestart(t *testing.T) {
	s := testScale()
	if !s.long {
		t.Skip("UPKEEP_TEST_LONG=1 runs it")
	}
	restartUnderLoad(t, "restart, taking leave", s.leave())
}

// rolledBack waits for the end of an update, which has to be that.
func (c *crowd) rolledBack(t *testing.T) {
	t.Helper()
	var s Status
	waitFor(t, "end of the update", func() bool {
		s = c.state()
		return s.LastResult != nil && s.Update == nil
	})
	if s.LastResult.Result != ResultRolledBack {
		t.Fatalf("result %+v", s.LastResult)
	}
}

// A bad release is rolled back, and nobody notices.
func TestHandoverRollback(t *testing.T) {
	needTelling(t)
	for _, bad := range []string{"exit", "hang"} {
		t.Run(bad, func(t *testing.T) {
			t.Parallel()
			s := testScale()
			c := newCrowd(t, HandoverAuto, s)
			c.cfg.Process.Env = append(c.cfg.Process.Env, plainTCP, "BAD=v1.0.1="+bad)
			c.cfg.Health.StartTime = config.Duration(2 * time.Second)
			c.cfg.Health.Timeout = config.Duration(time.Second)
			c.start()
			c.until("first start", func(s Status, v string) bool { return v != "" && s.Service.Running })
			l := startLoad(t, c.clients()...)
			c.publish("v1.0.1")
			c.rolledBack(t)
			c.until("the old version", func(s Status, v string) bool { return strings.Contains(v, "v1.0.0") })
			l.report("bad release that does " + bad)
			allowed := s.loss(0)
			l.within(allowed.perUpgrade, allowed.share, strict...)
			l.within(allowed.perUpgrade+2, allowed.share, "keep GET", "keep POST", "HTTP/2")
		})
	}
}
