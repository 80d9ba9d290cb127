//go:build linux

package supervisor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/proxy"
)

// proxied puts the crowd's service behind a proxy.
func proxied(t *testing.T, overlap bool, s scale) *crowd {
	c := newCrowd(t, HandoverAuto, s)
	c.cfg.Process.Env = []string{"START=" + s.start.String(), fmt.Sprint("LIFELINE=", os.Getpid()), "UDP=127.0.0.1:0"}
	for _, name := range []string{"HTTP", "HTTP2", "TLS"} {
		mode := proxy.HTTP
		if name == "TLS" {
			mode = proxy.TCP
		}
		c.cfg.Proxy.Listen = append(c.cfg.Proxy.Listen, proxy.Listen{Name: name, Address: c.addrs[name], Mode: mode})
		c.cfg.Process.Env = append(c.cfg.Process.Env, fmt.Sprintf("%s={{.Addr %q}}", name, name))
	}
	c.cfg.Proxy.Overlap = overlap
	c.cfg.Proxy.Hold = config.Duration(2 * time.Minute) // of a machine as slow as it may be
	c.cfg.Proxy.Drain = config.Duration(time.Minute)
	return c
}

// crowdOverTCP is without the client that the proxy is not for.
func (c *crowd) crowdOverTCP() []*client {
	all := c.clients()
	return all[:len(all)-1]
}

func TestHandoverProxy(t *testing.T) {
	for _, tc := range []struct {
		name    string
		overlap bool
		leave   bool // the service asks its clients to close their connections first
	}{{"hold", false, false}, {"overlap", true, false}, {"hold, taking leave", false, true}, {"overlap, taking leave", true, true}} {
		s := testScale()
		if tc.leave && !s.long {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := proxied(t, tc.overlap, s)
			if tc.leave {
				c.cfg.Process.Env = append(c.cfg.Process.Env, s.leave())
			}
			c.start()
			c.until("first start", func(s Status, v string) bool { return v != "" && s.Service.Running })
			l := startLoad(t, c.crowdOverTCP()...)
			c.upgrade()
			st := c.state()
			l.report(fmt.Sprintf("proxy, %s: %d upgrades, %v start-up", tc.name, s.upgrades, s.start))
			if h := st.Service.Handover; h.Mode != HandoverProxy || len(h.Sockets) != 3 {
				t.Errorf("status %+v", h)
			}
			if tc.overlap != (st.LastResult.Downtime == 0) {
				t.Errorf("downtime %v", st.LastResult.Downtime)
			}
			// What the proxy takes apart itself is never lost.
			l.must(0, "new", "second", "slow", "keep GET", "keep POST")
			// Bytes alone don't tell when a request ends.
			byBytes := 5 * s.upgrades
			if tc.leave {
				byBytes = 0
			}
			l.must(byBytes, "TLS", "HTTP/2")
			for _, cl := range l.clients {
				if cl.failed["refused"] > 0 || cl.failed["timeout"] > 0 {
					t.Errorf("%s: %v", cl.kind, cl.failed)
				}
			}
		})
	}
}

// TestHandoverProxyRollback has bad releases rolled back, and nobody notices.
func TestHandoverProxyRollback(t *testing.T) {
	for _, tc := range []struct {
		bad     string
		overlap bool
	}{{"exit", false}, {"hang", false}, {"exit", true}, {"hang", true}} {
		t.Run(fmt.Sprintf("%s, overlap %v", tc.bad, tc.overlap), func(t *testing.T) {
			t.Parallel()
			s := testScale()
			c := proxied(t, tc.overlap, s)
			c.cfg.Process.Env = append(c.cfg.Process.Env, "BAD=v1.0.1="+tc.bad)
			c.cfg.Health.StartTime = config.Duration(2 * time.Second)
			c.cfg.Health.Timeout = config.Duration(time.Second)
			c.start()
			c.until("first start", func(s Status, v string) bool { return v != "" && s.Service.Running })
			before := c.state().Service.Pid
			l := startLoad(t, c.crowdOverTCP()...)
			c.publish("v1.0.1")
			c.rolledBack(t)
			st := c.until("the old version", func(s Status, v string) bool { return strings.Contains(v, "v1.0.0") && s.Service.Running })
			if (st.Service.Pid == before) != tc.overlap {
				t.Errorf("process %d, before %d: beside a new version the old one need not end", st.Service.Pid, before)
			}
			for _, cl := range l.clients {
				waitFor(t, "two answers for "+cl.kind, func() bool {
					cl.mu.Lock()
					defer cl.mu.Unlock()
					return cl.sent > 1
				})
			}
			l.report("bad release that does " + tc.bad)
			l.must(0, "new", "second", "slow", "keep GET", "keep POST")
		})
	}
}

// TestHeldTooLong goes back when a new version takes longer than requests may be held.
func TestHeldTooLong(t *testing.T) {
	s := testScale()
	c := proxied(t, false, s)
	c.cfg.Process.Env = append(c.cfg.Process.Env, "BAD=v1.0.1=hang")
	c.cfg.Proxy.Hold = config.Duration(time.Second) // against a start time of a minute
	c.cfg.Proxy.Drain = 0
	c.start()
	c.until("first start", func(s Status, v string) bool { return v != "" && s.Service.Running })
	c.publish("v1.0.1")
	st := c.until("roll-back", func(s Status, v string) bool {
		return s.LastResult != nil && s.Update == nil && strings.Contains(v, "v1.0.0")
	})
	if st.LastResult.Result != ResultRolledBack || !strings.Contains(st.LastResult.Reason, "not healthy within") {
		t.Errorf("result %+v", st.LastResult)
	}
}

func TestDirect(t *testing.T) {
	list := []proxy.Listen{{Name: "web", Address: ":80", Mode: proxy.HTTP}, {Name: "tls", Address: "192.0.2.1:443", Mode: proxy.TCP}}
	b := proxy.Backends{"web": "127.0.0.1:1001", "tls": "127.0.0.1:1002"}
	for in, want := range map[string]string{
		"http://localhost/health":           "http://127.0.0.1:1001/health",
		"http://localhost:80/":              "http://127.0.0.1:1001/",
		"https://192.0.2.1/x?y":             "https://127.0.0.1:1002/x?y",
		"https://192.0.2.9/":                "https://192.0.2.9/",
		"http://localhost:8080/":            "http://localhost:8080/",
		`http://{{.Addr "web"}}/health`:     "http://127.0.0.1:1001/health",
		`http://localhost:{{.Port "tls"}}/`: "http://localhost:1002/",
	} {
		if got := (HealthConfig{URL: in}).direct(list, b).URL; got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	got := HealthConfig{TCP: "127.0.0.1:80", Command: []string{"probe", `{{.Addr "web"}}`}}.direct(list, b)
	if got.TCP != "127.0.0.1:1001" || got.Command[1] != "127.0.0.1:1001" {
		t.Errorf("%+v", got)
	}
}

func TestCheckProxy(t *testing.T) {
	good := Defaults()
	good.File = "f"
	good.Process.Handover = HandoverProxy
	good.Proxy.Listen = []proxy.Listen{{Name: "web", Address: ":80", Mode: proxy.HTTP}}
	good.Service.Args = []string{`-addr={{.Addr "web"}}`}
	if err := good.checkProxy(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"no address":       func(c *Config) { c.Proxy.Listen = nil },
		"unknown name":     func(c *Config) { c.Service.Args = []string{`{{.Addr "other"}}`} },
		"no template":      func(c *Config) { c.Process.Env = []string{"A={{"} },
		"no time to hold":  func(c *Config) { c.Proxy.Hold = 0 },
		"no time to drain": func(c *Config) { c.Proxy.Drain = -1 },
		"mode":             func(c *Config) { c.Proxy.Listen = []proxy.Listen{{Name: "web", Address: ":80", Mode: "udp"}} },
	} {
		c := good
		change(&c)
		if c.checkProxy() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
