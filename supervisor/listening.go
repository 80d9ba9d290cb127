package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/proxy"
	"example.org/upkeep/supervisor/retain"
)

// The modes in which a new version takes the connections over.
const (
	HandoverAuto      = "auto"
	HandoverRetain    = "retain"
	HandoverListenFDs = "listen-fds"
	HandoverProxy     = "proxy"
	HandoverRestart   = "restart"
)

var handoverModes = []string{HandoverRetain, HandoverListenFDs, HandoverProxy, HandoverRestart}

// SocketConfig is one of the tables [[process.socket]].
type SocketConfig struct {
	Name    string `toml:"name" comment:"Name by which the service knows it (LISTEN_FDNAMES). A socket that systemd passes under\nthis name is used instead of opening one."`
	Network string `toml:"network" comment:"\"tcp\", \"tcp4\", \"tcp6\", \"udp\", \"udp4\", \"udp6\", \"unix\" or \"unixgram\"."`
	Address string `toml:"address" comment:"host:port, or a file name."`
	Mode    string `toml:"mode" comment:"Permissions of the file, for example \"0660\"; empty: 0666."`
	User    string `toml:"user" comment:"Owner of the file; empty: upkeep's user."`
	Group   string `toml:"group" comment:"Group of the file; empty: upkeep's."`
}

// HandoverStatus says how a new version takes the connections over.
type HandoverStatus struct {
	Mode     string          `json:"mode"`  // retain, listen-fds, proxy or restart
	Asked    string          `json:"asked"` // as configured
	Reason   string          `json:"reason"`
	Sockets  []retain.Socket `json:"sockets,omitempty"`
	Warnings []string        `json:"warnings,omitempty"` // limits that the service met
}

// handoverFacts are what the choice of a mode goes by.
type handoverFacts struct {
	asked   string
	sockets int   // that the supervisor holds for the service
	proxy   bool  // one is configured
	tell    error // why bind calls can't be told here
}

// chooseHandover returns the mode and why it is that one.
func chooseHandover(f handoverFacts) (mode, reason string) {
	switch f.asked {
	case HandoverRestart:
		return HandoverRestart, "as configured: the service is away while it restarts"
	case HandoverProxy:
		return HandoverProxy, "as configured"
	case HandoverListenFDs:
		return HandoverListenFDs, "as configured: the service gets its sockets from upkeep"
	case HandoverAuto, HandoverRetain:
	}
	switch {
	case f.asked == HandoverAuto && f.proxy:
		return HandoverProxy, "a proxy is configured"
	case f.asked == HandoverAuto && f.sockets > 0:
		return HandoverListenFDs, "the service's sockets are configured"
	case f.tell == nil && f.asked == HandoverRetain:
		return HandoverRetain, "as configured: the service's sockets stay open while it restarts"
	case f.tell == nil:
		return HandoverRetain, "the service's sockets can be kept open while it restarts"
	}
	return HandoverRestart, "the service is away while it restarts, since its sockets can't be kept: " + f.tell.Error()
}

// listening is what keeps the service's addresses answered between two
// processes of it.
type listening struct {
	keeper *retain.Keeper
	gauge  metric.GaugeVec

	mu     sync.Mutex
	mode   string
	asked  string
	reason string
	specs  []retain.ListenSpec
	proxy  []proxy.Listen
	opened bool
}

// current returns the mode in force.
func (l *listening) current() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode
}

// newListening makes the keeper. What systemd or the upkeep before kept is in it.
func newListening(cfg *Config, deps *Deps) *listening {
	lost := deps.Metrics.CounterVec("upkeep_handover_sockets_lost_total", "Sockets of the service that could not be kept over its restart, by reason.", "reason")
	for _, r := range retain.Reasons {
		lost.With(r)
	}
	l := &listening{
		gauge: deps.Metrics.GaugeVec("upkeep_handover_info", "How a new version takes the connections over: 1 for the mode in force.", "mode"),
		keeper: retain.New(retain.Options{
			Log: deps.Log, Claim: max(time.Minute, cfg.Health.StartTime.D()+cfg.Health.Probation.D()),
			Store: deps.StoreFile, Forget: deps.ForgetFile,
			Lost: func(reason string) { lost.With(reason).Inc() },
		}),
	}
	deps.Metrics.Func(metric.KindGauge, "upkeep_handover_sockets", "Sockets that are kept open for the service beyond the end of its process.",
		func() float64 { return float64(l.keeper.Count()) })
	for _, n := range deps.Received {
		if cfg.forProxy(n.Name) {
			continue
		}
		l.keeper.Restore(n.Name, n.File)
	}
	return l
}

// configure takes what the configuration says of it. Sockets are opened once.
func (l *listening) configure(cfg *Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.opened {
		l.specs, l.proxy = cfg.listenSpecs(), cfg.Proxy.Listen
	}
	l.asked = cfg.Process.Handover
	l.choose(handoverFacts{
		asked: l.asked, sockets: max(len(l.specs), len(l.keeper.Pass())), proxy: len(cfg.Proxy.Listen) > 0,
		tell: process.CanTellBinds(cfg.Service.Path),
	})
}

func (l *listening) choose(f handoverFacts) {
	l.mode, l.reason = chooseHandover(f)
	for _, m := range handoverModes {
		l.gauge.With(m).Set(number(m == l.mode))
	}
}

// open opens the service's sockets, before its first start.
func (l *listening) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened || l.mode != HandoverListenFDs {
		return nil
	}
	if err := l.keeper.Listen(l.specs); err != nil {
		return err
	}
	l.opened = true
	return nil
}

// apply says how a process of the service is to be started.
func (l *listening) apply(s *process.Spec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.mode {
	case HandoverRetain:
		if !l.keeper.Plain() {
			s.Handover, s.TellBinds = l.keeper, true
		}
	case HandoverListenFDs:
		s.Handover, s.ListenFDs = l.keeper, l.keeper.Pass()
	default:
		l.keeper.Abandon() // from when another mode was in force
	}
}

// ready tells that the running process serves.
func (l *listening) ready() { l.keeper.Ready() }

// release gives everything up: the service is to end for good.
func (l *listening) release() { l.keeper.Release() }

// vacant reports whether an address answers only because its socket is kept,
// and nobody has taken it over yet.
func (l *listening) vacant(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(l.keeper.Status().Sockets, func(s retain.Socket) bool {
		return !s.Claimed && s.Network != "udp" && strings.HasSuffix(s.Address, ":"+port)
	})
}

// status is what there is to know.
func (l *listening) status() HandoverStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keeper.Status()
	s := HandoverStatus{Mode: l.mode, Asked: l.asked, Reason: l.reason, Sockets: k.Sockets, Warnings: k.Warnings}
	if l.mode == HandoverRetain && k.Off != "" {
		s.Mode, s.Reason = HandoverRestart, "the service is away while it restarts, since its sockets can't be kept: "+k.Off
	}
	if l.mode == HandoverProxy {
		for _, p := range l.proxy {
			s.Sockets = append(s.Sockets, retain.Socket{Name: p.Name, Network: "tcp", Address: p.Address, Claimed: true})
		}
	}
	return s
}

// listenSpecs are the configured sockets.
func (c *Config) listenSpecs() []retain.ListenSpec {
	var specs []retain.ListenSpec
	for _, s := range c.Process.Sockets {
		spec := retain.ListenSpec{Name: s.Name, Network: s.Network, Address: s.Address, Mode: 0o666, UID: -1, GID: -1}
		if m, err := strconv.ParseUint(s.Mode, 8, 9); err == nil {
			spec.Mode = os.FileMode(m)
		}
		if id, err := lookupUser(s.User); err == nil && s.User != "" {
			spec.UID = id
		}
		if id, err := lookupGroup(s.Group); err == nil && s.Group != "" {
			spec.GID = int(id)
		}
		specs = append(specs, spec)
	}
	return specs
}

// checkSockets returns what is wrong with the sockets and the mode.
func (c *Config) checkSockets() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: key %s %s", c.File, key, fmt.Sprintf(format, args...)))
	}
	names := map[string]bool{}
	for _, s := range c.Process.Sockets {
		key := "process.socket " + strconv.Quote(s.Name)
		switch {
		case s.Name == "" || strings.ContainsAny(s.Name, ": \n") || len(s.Name) > 255:
			bad("process.socket", "has the name %q; it needs one without colons and spaces", s.Name)
			continue
		case strings.HasPrefix(s.Name, retain.StoreName):
			bad(key, "begins with %s, which upkeep's own names do", retain.StoreName)
		case names[s.Name]:
			bad(key, "is there twice")
		}
		names[s.Name] = true
		switch s.Network {
		case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
			if !isAddress(s.Address, 0) {
				bad(key, "has the address %q, which is not host:port", s.Address)
			}
			if s.Mode != "" || s.User != "" || s.Group != "" {
				bad(key, "has mode, user or group, which only files have")
			}
		case "unix", "unixgram":
			if !filepath.IsAbs(s.Address) {
				bad(key, "has the address %q, which is no file name", s.Address)
			}
			if _, err := strconv.ParseUint(s.Mode, 8, 9); err != nil && s.Mode != "" {
				bad(key, "has the mode %q; it looks like \"0660\"", s.Mode)
			}
			if _, err := lookupUser(s.User); err != nil && s.User != "" {
				bad(key, "%v", err)
			}
			if _, err := lookupGroup(s.Group); err != nil && s.Group != "" {
				bad(key, "%v", err)
			}
		default:
			bad(key, "has the network %q; it can be tcp, tcp4, tcp6, udp, udp4, udp6, unix or unixgram", s.Network)
		}
	}
	return errors.Join(errs...)
}
