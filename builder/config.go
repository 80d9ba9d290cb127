package builder

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"time"

	"example.org/upkeep/internal/config"
)

// Config is the part of the configuration that the service itself reads.
type Config struct {
	GoRoot         []string        `toml:"goroot" comment:"Folders of locally installed Go versions (GOROOT), each offered for its own version. Other versions\nare taken from the module golang.org/toolchain."`
	GoIndex        string          `toml:"go_index" comment:"Zone of an upkeep-dns that says which Go versions are current, previous and next. Empty, or when it does\nnot answer: the module proxy's list."`
	GoIndexServer  string          `toml:"go_index_server" comment:"Name server that is asked for go_index, host:port. Empty: the system's resolver."`
	Parallel       int             `toml:"parallel" comment:"Builds at the same time. 0: one for every two processors."`
	MaxQueue       int             `toml:"max_queue" comment:"Builds that may wait; more are refused. As many again may wait for verifiers; for one more the oldest of the\nclient network with most of them fails for now."`
	FetchTimeout   config.Duration `toml:"fetch_timeout" comment:"Longest time for downloading a module and its dependencies."`
	CompileTimeout config.Duration `toml:"compile_timeout" comment:"Longest time for compiling."`
	Memory         int             `toml:"memory" comment:"Most memory of one build, in MiB. 0: four fifths of the machine's. Builds that run at the same time share\nthat; one that needs more than its share is tried again alone."`
	Processes      int             `toml:"processes" comment:"Processes and threads of one build."`
	MaxWork        int             `toml:"max_work" comment:"Disk space of one build while it runs, in MiB."`
	Share          int             `toml:"share" comment:"Space for compiled dependencies that builds share, for each Go version and target, in MiB; above it, the\nhalf that was not used for longest is removed as soon as no build runs. Needs Landlock, which confines each compiler process. 0: nothing is shared."`
	ModQuota       int             `toml:"mod_quota" comment:"Space for downloaded modules, in MiB. Above it, those not used for longest are removed as soon as no build\nruns. 0: no limit."`
	MaxBinary      int             `toml:"max_binary" comment:"Largest binary that is kept, in MiB."`
	DiskFree       int             `toml:"disk_free" comment:"No build starts when less disk space than this is free, in MiB; modules and compiled dependencies make room\nthen. A build that leaves less than half of it is ended."`
	Quota          int             `toml:"quota" comment:"Space for binaries, in MiB. The least recently used ones are removed; asking for one builds it again,\nwith the sum that is in the log. 0: no limit."`
	Tries          int             `toml:"tries" comment:"How often a build is tried that fails for a reason that may pass."`
	Backoff        config.Duration `toml:"backoff" comment:"Time before the second try; it grows fourfold with each."`
	Abandon        config.Duration `toml:"abandon" comment:"A build that nobody has waited for during this time is cancelled."`
	Unused         config.Duration `toml:"unused" comment:"Go toolchains that were not used for this long are removed, but for the newest. 0: never."`
	Ahead          config.Duration `toml:"ahead" comment:"How often to look at the module proxy for newer versions of what was built last (of 50 builds), to build them for\nthe same targets and Go versions before anybody asks; one at a time, while nothing else is built. 0: never."`
	Limit          LimitConfig     `toml:"limit" comment:"What one client network (IPv4 /24, IPv6 /48) may start. Loopback has no limit."`
	Allow          []string        `toml:"allow" comment:"Modules that are built, as patterns of path prefixes (\"github.com/mjl-\", \"example.org/*\"). Empty: all."`
	Deny           []string        `toml:"deny" comment:"Modules that are not built, as patterns of path prefixes."`
	Verifiers      []Verifier      `toml:"verifiers" comment:"Other build services of the same formats that must come to the same sum before a record is logged. Each is\na table [[build.verifiers]] with key, its log's verifier key, and if needed url, the base address of its log. Two\nupkeep-build may name each other; another program that has this one as a verifier in turn needs asks_back = true:\nit is asked after the record was logged. from = [\"192.0.2.0/24\"] says where it asks from, if not from the\naddress of its log."`
	Require        int             `toml:"require" comment:"How many of the verifiers must have the same sum."`
	VerifyTimeout  config.Duration `toml:"verify_timeout" comment:"How long to wait for a verifier, which may have to build first."`
	Drain          config.Duration `toml:"drain" comment:"When the server is told to stop, builds that run have this long to end. The others go on at the next start."`
}

// LimitConfig bounds what one client network may start.
type LimitConfig struct {
	Recent  int      `toml:"recent" comment:"New builds with the current or previous Go version, in an hour. 0: no limit."`
	Old     int      `toml:"old" comment:"New builds with other Go versions, in an hour. 0: no limit."`
	Pages   int      `toml:"pages" comment:"Pages of modules and resolutions of \"latest\", which ask the module proxy, in a minute. 0: no limit."`
	Except  []string `toml:"except" comment:"Addresses and networks without limits, for example of builders that have this one as a verifier."`
	Proxies []string `toml:"trusted_proxies" comment:"Addresses and networks of your reverse proxies: of a request from one of them, the client is the last address\nin X-Forwarded-For that is none of them."`
}

// A Verifier is another build service.
type Verifier struct {
	Key string `toml:"key" comment:"Verifier key of its log."`
	URL string `toml:"url" comment:"Base address of its log. Empty: https://<name>/tlog, or http://<name>:8000/tlog for a name without a dot."`

	From []string `toml:"from" comment:"Addresses and networks that it asks from, where these are not the addresses of its log, with those of builders\nthat it has as verifiers in turn. They only matter for a program other than upkeep-build that waits for this one's\nrecord while this one waits for its: it is told so when it asks from there."`

	AsksBack bool `toml:"asks_back" comment:"It is another program that has this builder as a verifier in turn, directly or through others. It answers\nonly when this one has logged, so it is asked afterwards: it does not count for require, and a difference is an\nalarm about a record that is logged already."`
}

// DefaultConfig returns the default values.
func DefaultConfig() Config {
	return Config{
		GoRoot:         []string{},
		MaxQueue:       500,
		FetchTimeout:   config.Duration(10 * time.Minute),
		CompileTimeout: config.Duration(30 * time.Minute),
		Processes:      1000,
		MaxWork:        4096,
		Share:          2048,
		ModQuota:       16384,
		MaxBinary:      1024,
		DiskFree:       2048,
		Unused:         config.Duration(30 * 24 * time.Hour),
		Limit:          LimitConfig{Recent: 60, Old: 20, Pages: 60, Except: []string{}, Proxies: []string{"127.0.0.0/8", "::1"}},
		Allow:          []string{},
		Deny:           []string{},
		Verifiers:      []Verifier{},
		VerifyTimeout:  config.Duration(30 * time.Minute),
		Tries:          3,
		Backoff:        config.Duration(2 * time.Second),
		Abandon:        config.Duration(time.Minute),
		Drain:          config.Duration(20 * time.Second),
	}
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	var errs []error
	positive := func(key string, v int) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s is %d; it must be greater than 0", key, v))
		}
	}
	positive("max_queue", c.MaxQueue)
	positive("processes", c.Processes)
	positive("max_work", c.MaxWork)
	positive("max_binary", c.MaxBinary)
	positive("tries", c.Tries)
	if c.Parallel < 0 || c.Memory < 0 || c.DiskFree < 0 {
		errs = append(errs, errors.New("parallel, memory and disk_free can't be negative"))
	}
	if c.Ahead > 0 && c.Ahead.D() < minAhead {
		errs = append(errs, fmt.Errorf("ahead is %v; it must be 0 or at least %v", c.Ahead, minAhead))
	}
	if c.GoIndexServer != "" {
		if _, _, err := net.SplitHostPort(c.GoIndexServer); err != nil || c.GoIndex == "" {
			errs = append(errs, fmt.Errorf("go_index_server is %q; it must be host:port, and go_index the zone to ask for", c.GoIndexServer))
		}
	}
	if c.Share < 0 || c.ModQuota < 0 {
		errs = append(errs, errors.New("share and mod_quota can't be negative"))
	}
	if c.Quota < 0 || c.Limit.Recent < 0 || c.Limit.Old < 0 || c.Limit.Pages < 0 {
		errs = append(errs, errors.New("quota, limit.recent, limit.old and limit.pages can't be negative"))
	}
	first := 0 // of the verifiers, those that are asked before a record is logged
	for _, v := range c.Verifiers {
		if !v.AsksBack {
			first++
		}
	}
	if c.Require < 0 || c.Require > first {
		errs = append(errs, fmt.Errorf("require is %d, but there are %d verifiers that don't ask back", c.Require, first))
	}
	if first > 0 && c.Require == 0 {
		errs = append(errs, errors.New("require is 0, so the verifiers decide nothing; set it to how many must agree"))
	}
	if _, err := newClientLimits(c.Limit, slog.Default()); err != nil {
		errs = append(errs, err)
	}
	names := map[string]bool{}
	for _, v := range c.Verifiers {
		if _, err := v.base(); err != nil {
			errs = append(errs, err)
		}
		name, _, _ := strings.Cut(v.Key, "+")
		if names[name] {
			errs = append(errs, fmt.Errorf("verifiers: %s is there twice; each counts once for require", name))
		}
		names[name] = true
		if _, err := parseNetworks(v.From); err != nil {
			errs = append(errs, fmt.Errorf("verifiers: from: %w", err))
		}
	}
	if c.FetchTimeout == 0 || c.CompileTimeout == 0 {
		errs = append(errs, errors.New("fetch_timeout and compile_timeout can't be 0"))
	}
	return errors.Join(errs...)
}

func (c Config) parallel() int {
	if c.Parallel > 0 {
		return c.Parallel
	}
	return max(1, runtime.NumCPU()/2)
}
