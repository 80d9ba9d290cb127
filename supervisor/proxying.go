package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/handoff"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/proxy"
)

// ProxyConfig is the table [proxy].
type ProxyConfig struct {
	Listen  []proxy.Listen  `toml:"listen" comment:"Addresses on which upkeep listens for the service: tables [[proxy.listen]] with name, address\nand mode (\"http\" or \"tcp\"). The service gets others, by the template\n{{.Addr \"name\"}} (or Host and Port) in service.args and process.env; health.url and\nhealth.tcp may use it too."`
	Overlap bool            `toml:"overlap" comment:"Start a new version beside the old one, which ends when the new one has taken over. Both\nrun for a moment: the service has to bear that."`
	Hold    config.Duration `toml:"hold" comment:"How long requests are held for a new version; then the one before comes back."`
	Drain   config.Duration `toml:"drain" comment:"How long requests under way are waited for before the old version is told to end."`
}

// checkProxy returns what is wrong with the table.
func (c *Config) checkProxy() error {
	switch {
	case len(c.Proxy.Listen) == 0 && c.Process.Handover == HandoverProxy:
		return fmt.Errorf("%s: key proxy.listen names no address, and process.handover is \"proxy\"", c.File)
	case len(c.Proxy.Listen) == 0:
		return nil
	}
	if err := proxy.Check(c.Proxy.Listen); err != nil {
		return fmt.Errorf("%s: key proxy.listen: %w", c.File, err)
	}
	if c.Proxy.Hold <= 0 || c.Proxy.Drain < 0 {
		return fmt.Errorf("%s: key proxy.hold has to be more than 0, proxy.drain not less", c.File)
	}
	b := c.sampleBackends()
	for _, text := range slices.Concat(c.Service.Args, c.Process.Env) {
		if _, err := b.Expand(text); err != nil {
			return fmt.Errorf("%s: service.args and process.env: %w", c.File, err)
		}
	}
	return nil
}

// sampleBackends are addresses to try templates with.
func (c *Config) sampleBackends() proxy.Backends {
	b := proxy.Backends{}
	for _, l := range c.Proxy.Listen {
		b[l.Name] = "127.0.0.1:1"
	}
	return b
}

// direct returns the health checks as they reach one run of the service past
// the proxy, which may be holding everything: templates are filled in, and the
// proxy's own addresses become those behind it.
func (c HealthConfig) direct(list []proxy.Listen, b proxy.Backends) HealthConfig {
	if len(b) == 0 {
		return c
	}
	fill := func(s string) string {
		if t, err := b.Expand(s); err == nil {
			return t
		}
		return s
	}
	c.URL, c.TCP = fill(c.URL), behind(list, b, fill(c.TCP))
	if u, err := url.Parse(c.URL); err == nil && c.URL != "" {
		host := u.Host
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		}
		if to := behind(list, b, host); to != host {
			u.Host = to
			c.URL = u.String()
		}
	}
	c.Command = slices.Clone(c.Command)
	for i := range c.Command {
		c.Command[i] = fill(c.Command[i])
	}
	return c
}

// behind returns the backend of an address on which the proxy listens; another
// address is left as it is.
func behind(list []proxy.Listen, b proxy.Backends, addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	for _, l := range list {
		ours, ourPort, err := net.SplitHostPort(l.Address)
		if err == nil && ourPort == port && (ours == host || anyHost(ours) || anyHost(host)) {
			return b[l.Name]
		}
	}
	return addr
}

func anyHost(h string) bool {
	ip := net.ParseIP(h)
	return h == "" || ip != nil && ip.IsUnspecified()
}

// front is the proxy before the service. All its methods may be called from
// any goroutine; those of a nil one do nothing.
type front struct {
	proxy *proxy.Proxy
	cfg   ProxyConfig
	log   *slog.Logger

	mu     sync.Mutex
	since  time.Time       // of the holding; zero = nothing is held
	beside process.Process // the old process, while the new one starts beside it
}

// orderTime bounds orders to the proxy that wait for nothing.
const orderTime = 10 * time.Second

// hold lets nothing new through to the service, and waits for what is under way.
func (f *front) hold(drain time.Duration) {
	if f == nil {
		return
	}
	f.mu.Lock()
	if f.since.IsZero() {
		f.since = time.Now()
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drain+orderTime)
	defer cancel()
	left, err := f.proxy.Hold(ctx, drain)
	if err != nil {
		f.log.Error("requests are not held", "err", err)
	} else if left > 0 {
		f.log.Warn("the service is told to end with requests under way", "requests", left, "waited", drain)
	}
}

// left is how much longer requests may be held, at most the given time.
func (f *front) left(limit time.Duration) time.Duration {
	if f == nil {
		return limit
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() {
		return limit
	}
	return max(0, min(limit, f.cfg.Hold.D()-time.Since(f.since)))
}

// open waits until a run of the service accepts connections, and lets requests
// through to it.
func (f *front) open(ctx context.Context, b proxy.Backends, within time.Duration) error {
	if err := f.proxy.Switch(ctx, b, within); err != nil {
		return err
	}
	if err := f.proxy.Release(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	f.since = time.Time{}
	f.mu.Unlock()
	return nil
}

func (f *front) close() {
	if f != nil {
		f.proxy.Close()
	}
}

// overlaps reports whether a new version starts beside the old one.
func (f *front) overlaps() bool { return f != nil && f.cfg.Overlap }

// leave keeps a process running beside the next one.
func (f *front) leave(p process.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beside = p
}

// former takes the process that was left running, if it still does.
func (f *front) former() process.Process {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.beside
	f.beside = nil
	if p != nil {
		select {
		case <-p.Done():
			return nil
		default:
		}
	}
	return p
}

// frontOptions are the same for a new helper and one that is taken over.
func (e *Engine) frontOptions() proxy.Options {
	cfg := e.conf().Proxy
	return proxy.Options{
		Program: ownProgram(), Listen: cfg.Listen, Files: e.received(),
		// Those who wait shall see the old version come back too.
		Hold: 2 * cfg.Hold.D(), Log: e.log,
	}
}

// ownProgram is this program's file, also when another one has its name by now.
func ownProgram() string {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self
	}
	exe, _ := os.Executable() // its start reports
	return exe
}

// received are the sockets from systemd that are for the proxy.
func (e *Engine) received() map[string]*os.File {
	files := map[string]*os.File{}
	for _, n := range e.deps.Received {
		if e.conf().forProxy(n.Name) {
			files[n.Name] = n.File
		}
	}
	return files
}

// forProxy reports whether a socket of that name is the proxy's.
func (c *Config) forProxy(name string) bool {
	return slices.ContainsFunc(c.Proxy.Listen, func(l proxy.Listen) bool { return l.Name == name })
}

// openFront starts the proxy, when that is how connections are handed over.
func (e *Engine) openFront() error {
	if e.front != nil || e.listening.current() != HandoverProxy {
		return nil
	}
	p, err := proxy.Start(context.Background(), e.frontOptions())
	if err != nil {
		return err
	}
	e.front = &front{proxy: p, cfg: e.conf().Proxy, log: e.log, since: time.Now()}
	return nil
}

// takeOverFront goes on with the proxy that the version before handed over.
func (e *Engine) takeOverFront(b *handoff.Bundle, c *company) {
	p, err := proxy.Attach(context.Background(), b, e.frontOptions())
	if err != nil {
		e.addEvent(Event{Kind: "proxy", Text: err.Error()})
	}
	if p != nil {
		e.front = &front{proxy: p, cfg: e.conf().Proxy, log: e.log}
		c.backends = p.Backends()
	}
}

func (e *Engine) handOffFront(b *handoff.Bundle) error {
	if e.front == nil {
		return nil
	}
	return e.front.proxy.Handoff(b)
}

// behindProxy gives a start of the service addresses of its own.
func (e *Engine) behindProxy(c *company, s *process.Spec) error {
	if e.front == nil {
		return nil
	}
	b, err := proxy.Reserve(e.front.cfg.Listen)
	if err != nil {
		return err
	}
	fill := func(list []string) []string {
		list = slices.Clone(list)
		for i, text := range list {
			filled, errFill := b.Expand(text)
			if strings.Contains(text, "{{") && errFill == nil {
				list[i] = filled
			}
		}
		return list
	}
	s.Args, s.Env = fill(s.Args), fill(s.Env)
	c.backends = b
	return nil
}

// admit lets requests through to a process as soon as it listens. A new
// version's probation does that itself.
func (e *Engine) admit(p process.Process) {
	c := e.company(p)
	if e.front == nil || c == nil || c.backends == nil || maps.Equal(c.backends, e.front.proxy.Backends()) {
		return
	}
	if u := e.doc.Update; u != nil && u.State == StateStarting {
		return
	}
	f, within := e.front, e.conf().Health.StartTime.D()
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-p.Done():
				cancel()
			case <-ctx.Done():
			}
		}()
		err := f.open(ctx, c.backends, within)
		for err != nil && ctx.Err() == nil {
			e.post(func() { e.addEvent(Event{Kind: "proxy", Text: err.Error()}) })
			err = f.open(ctx, c.backends, time.Minute)
		}
	}()
}

// takeTraffic gives the service's traffic to a new version that has shown that
// it is well, and then ends the old one when it still runs beside it.
func (e *Engine) takeTraffic(ctx context.Context, p process.Process) error {
	c := e.company(p)
	if e.front == nil || c == nil {
		return nil
	}
	f := e.front
	if err := f.open(ctx, c.backends, f.left(e.conf().Health.StartTime.D())); err != nil {
		return err
	}
	old := f.former()
	if old == nil {
		return nil
	}
	if left, err := f.proxy.Drain(ctx, f.cfg.Drain.D()); err == nil && left > 0 {
		f.log.Warn("the old version is told to end with requests under way", "requests", left)
	}
	_, err := old.Stop(e.killCtx)
	return err
}
