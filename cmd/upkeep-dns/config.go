package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/web"
)

// A Config is the program's configuration file.
type Config struct {
	Listen  []string             `toml:"listen" comment:"Addresses to answer on over UDP and TCP. Port 0 is a free one, which is printed.\n\":53\" is IPv4 and IPv6, and so is \"[::]:53\" unless \"0.0.0.0:53\", IPv4 alone, is listed beside it.\n\"systemd\" stands for the sockets that a .socket unit passes."`
	Keys    string               `toml:"keys" comment:"Folder of the zone's keys: pairs of K*.key and K*.private files, see 'upkeep-dns keygen'.\nRelative names of files and folders in this file are relative to its folder."`
	State   string               `toml:"state" comment:"Folder of the index and of the newest tree head. It must outlive restarts."`
	HTTP    string               `toml:"http" comment:"Address for metrics (/metrics) and the page of the index; empty is none."`
	Hosts   []string             `toml:"hosts" comment:"Names that the page is reached under, without port; localhost and its address always work."`
	Metrics string               `toml:"metrics" comment:"Address that serves /metrics alone. Empty: on http, for everybody who reaches it."`
	Queries int                  `toml:"query_log" comment:"Log one of so many queries; 0 is none."`
	Zone    dnsserver.ZoneConfig `toml:"zone" comment:"The zone."`
	TLS     TLSConfig            `toml:"tls" comment:"Encrypted transports. The name servers in the zone announce them by SVCB records."`
	Page    web.TLS              `toml:"http_tls" comment:"TLS on the address http."`
	Limits  LimitConfig          `toml:"limits" comment:"Bounds on what askers can use."`
	Log     LogConfig            `toml:"log" comment:"The checksum database."`
	Watch   WatchConfig          `toml:"watch" comment:"What to watch, when log.mode is \"watch\"."`
}

// TLSConfig says which encrypted transports there are.
type TLSConfig struct {
	Certificate string   `toml:"certificate" comment:"PEM file with the certificate of the name servers and its chain; read again when it changes."`
	Key         string   `toml:"key" comment:"PEM file with its key."`
	ACME        string   `toml:"acme" comment:"Instead of certificate and key: the directory of an ACME server, for example\nhttps://acme-v02.api.letsencrypt.org/directory. Setting it agrees to that server's terms."`
	Names       []string `toml:"names" comment:"Names that the certificate by ACME is for: those of this name server. Port 443 of them has to lead to doh."`
	Contact     string   `toml:"acme_contact" comment:"Mail address that the ACME server may write to."`
	Roots       string   `toml:"acme_roots" comment:"PEM file of the roots that the ACME server's own certificate comes from. Empty: the system's."`
	DoT         string   `toml:"dot" comment:"Address for DNS over TLS, for example \":853\"; empty is none."`
	DoQ         string   `toml:"doq" comment:"Address for DNS over QUIC, for example \":853\"; empty is none."`
	DoH         string   `toml:"doh" comment:"Address for DNS over HTTPS, for example \":443\"; empty is none. The path is /dns-query."`
}

// LimitConfig bounds what askers can use.
type LimitConfig struct {
	Idle       config.Duration      `toml:"tcp_idle" comment:"A TCP connection without a query is closed after this time."`
	Conns      int                  `toml:"tcp_connections" comment:"TCP connections in all."`
	ConnsPerIP int                  `toml:"tcp_connections_per_client" comment:"TCP connections of one IPv4 address or IPv6 /64."`
	Cookies    string               `toml:"cookie_secrets" comment:"File with the secrets of DNS cookies, 32 hex digits a line, that servers of one name share; empty is one made at the start."`
	Rate       dnsserver.RateConfig `toml:"rate" comment:"Answers over UDP."`
	Answers    int                  `toml:"answers" comment:"Answers and signatures kept in memory, about 1 kB for each."`
}

// handler is the part that the handler keeps to.
func (l *LimitConfig) handler() dnsserver.Limits {
	return dnsserver.Limits{Answers: l.Answers, Rate: l.Rate}
}

// connections is the part that the server keeps to.
func (l *LimitConfig) connections() dnsserver.ListenConfig {
	return dnsserver.ListenConfig{Idle: l.Idle.D(), Conns: l.Conns, ConnsPerIP: l.ConnsPerIP}
}

// LogConfig says which checksum database to follow, and how.
type LogConfig struct {
	Mode     string          `toml:"mode" comment:"\"follow\" reads the whole log; \"watch\" looks up the versions of some modules."`
	Database string          `toml:"database" comment:"The checksum database in the form of GOSUMDB: \"sum.golang.org\", or a verifier key (name+hash+key).\nEmpty is what GOSUMDB says, or 'go env'."`
	URL      string          `toml:"url" comment:"Where it answers. Empty is through the module proxy when that carries it, else https://<name>."`
	Proxy    string          `toml:"proxy" comment:"Module proxies in the form of GOPROXY. Empty is what GOPROXY says, or 'go env'."`
	Interval config.Duration `toml:"interval" comment:"Time between two polls; a little jitter is added."`
	SeenTime bool            `toml:"seen_time" comment:"The time of a version is when this server saw it, not what the log's own contents tell.\nFor a small private log, when following; replicas will differ."`
	Tiles    string          `toml:"tiles" comment:"Folder that keeps the log's tiles for a second index, when following; empty is none."`
	Requests float64         `toml:"requests_per_second" comment:"Requests to the log a second at most; 0 is no limit."`
	Bytes    float64         `toml:"bytes_per_second" comment:"Bytes received from the log a second at most, unpacked; 0 is no limit."`
	Parallel int             `toml:"parallel" comment:"Tiles fetched at the same time when following; 0 is 16."`
}

// WatchConfig says what to watch.
type WatchConfig struct {
	Modules   []string `toml:"modules" comment:"Module paths, for example [\"github.com/mjl-/mox\"]."`
	Toolchain bool     `toml:"toolchain" comment:"Watch the releases of Go too."`
}

func defaultConfig() Config {
	lc := dnsserver.DefaultListenConfig()
	c := Config{
		Listen: []string{":53"},
		Keys:   "/var/lib/upkeep-dns/keys",
		State:  "/var/lib/upkeep-dns",
		Zone:   dnsserver.DefaultZoneConfig(),
		Limits: LimitConfig{Idle: config.Duration(lc.Idle), Conns: lc.Conns, ConnsPerIP: lc.ConnsPerIP, Rate: dnsserver.DefaultRateConfig(), Answers: dnsserver.DefaultAnswers},
		Log:    LogConfig{Mode: "follow", Interval: config.Duration(30 * time.Second)},
		Watch:  WatchConfig{Modules: []string{}, Toolchain: true},
	}
	c.TLS.Names = []string{}
	c.Zone.NameServers = []dnsserver.NameServer{}
	c.Zone.Records = []string{}
	return c
}

const minInterval = 200 * time.Millisecond

func (c *Config) check() error {
	if err := c.TLS.check(); err != nil {
		return err
	}
	c.Zone.Encrypted = c.TLS.announced()
	if err := c.Zone.Check(); err != nil {
		return err
	}
	if c.Limits.Cookies != "" {
		if _, err := cookieSecrets(c.Limits.Cookies); err != nil {
			return err
		}
	}
	if len(c.Listen) == 0 {
		return errors.New("listen: no address to answer on")
	}
	if err := c.checkAddresses(); err != nil {
		return err
	}
	if c.State == "" || c.Keys == "" {
		return errors.New("state and keys: both folders must be named")
	}
	if c.Limits.Idle.D() < 100*time.Millisecond || c.Limits.Idle.D() > time.Hour || c.Limits.Conns < 1 || c.Limits.ConnsPerIP < 1 || c.Limits.Answers < 64 || c.Limits.Answers > 1<<26 {
		return errors.New("limits: tcp_idle is between 100ms and 1h, the connections at least 1, answers between 64 and 67108864")
	}
	if c.Log.Interval.D() < minInterval {
		return fmt.Errorf("log.interval: %s is less than %s", c.Log.Interval, minInterval)
	}
	if c.Log.Requests < 0 || c.Log.Bytes < 0 || c.Log.Parallel < 0 {
		return errors.New("log: requests_per_second, bytes_per_second and parallel can't be negative")
	}
	if r := c.Limits.Rate; min(r.Answers, r.Denials, r.Errors, r.Slip) < 0 {
		return errors.New("limits.rate: a negative number is no rate; 0 is no limit")
	}
	switch c.Log.Mode {
	case "follow":
	case "watch":
		if len(c.Watch.Modules) == 0 && !c.Watch.Toolchain {
			return errors.New("watch.modules: nothing to watch; name modules or set log.mode to \"follow\"")
		}
		for _, m := range c.Watch.Modules {
			if err := module.CheckPath(m); err != nil {
				return fmt.Errorf("watch.modules: %w", err)
			}
		}
	default:
		return fmt.Errorf("log.mode: %q is neither \"follow\" nor \"watch\"", c.Log.Mode)
	}
	if c.Log.Database != "" {
		if _, err := goproxy.ParseSumDB(c.Log.Database); err != nil {
			return fmt.Errorf("log.database: %w", err)
		}
	}
	return nil
}

// flaps says what is wrong with a time after which the index is too old that can
// pass between two polls, "" if nothing. The index notes some 15 seconds apart that the
// log was read.
func (c *Config) flaps() string {
	stale, polls := c.Zone.StaleAfter.D(), 2*c.Log.Interval.D()+30*time.Second
	if stale == 0 || stale >= polls {
		return ""
	}
	return fmt.Sprintf("zone.stale_after of %s can pass between two polls of the log: names of modules will be answered SERVFAIL now and then; with this log.interval give it at least %s", stale, polls)
}

// checkAddresses finds out whether all can be listened on, as far as that can be
// told without trying.
func (c *Config) checkAddresses() error {
	for _, p := range append(c.places(), place{kind: "http", addr: c.HTTP}, place{kind: "metrics", addr: c.Metrics}) {
		if p.addr == "" || p.kind == "listen" && p.addr == "systemd" {
			continue
		}
		_, port, err := net.SplitHostPort(p.addr)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("%s: the address %q is not host:port, for example \"127.0.0.1:53\" or \":53\"", p.kind, p.addr)
		}
	}
	if c.HTTP == "" {
		return nil
	}
	listen := c.Page.Listen(c.HTTP, c.Hosts, c.State, slog.Default())
	listen.Login, listen.Plain = true, true // the page is for everybody
	if err := listen.Check(); err != nil {
		return fmt.Errorf("http and http_tls: %w", err)
	}
	return nil
}

// indexFile is the file of the index. Each mode has its own, so that changing
// the mode and changing back loses nothing.
func (c *Config) indexFile() string { return filepath.Join(c.State, "index-"+c.Log.Mode+".db") }

// kind is the kind of index that the mode makes.
func (c *Config) kind() string {
	if c.Log.Mode == "watch" {
		return index.Watching
	}
	return index.Following
}

// fill completes what the configuration leaves to the environment.
func (l *LogConfig) fill(ctx context.Context) (goproxy.SumDB, error) {
	if l.Proxy == "" || l.Database == "" {
		env, err := goproxy.FromEnv(ctx)
		if err != nil && (l.Proxy == "" && (l.Mode == "watch" || l.URL == "") || !errors.Is(err, goproxy.ErrNoProxy)) {
			return goproxy.SumDB{}, cli.Hint(fmt.Errorf("log.proxy: %w", err), "Set log.proxy in the configuration, the flag -proxy or GOPROXY.")
		}
		if l.Proxy == "" {
			l.Proxy = env.GOPROXY
		}
		if l.Database == "" {
			l.Database = env.GOSUMDB
		}
		if l.Database == "" {
			l.Database = "sum.golang.org"
		}
	}
	db, err := goproxy.ParseSumDB(l.Database)
	if err != nil {
		return db, fmt.Errorf("log.database: %w", err)
	}
	if l.Proxy != "" {
		if _, err := goproxy.New(l.Proxy, http.DefaultClient); err != nil {
			return db, fmt.Errorf("log.proxy: %w", err)
		}
	}
	if l.URL != "" {
		if u, err := url.Parse(l.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "file" {
			return db, fmt.Errorf("log.url: %q is not an http, https or file URL", redacted(l.URL))
		}
		db.URL = strings.TrimSuffix(l.URL, "/")
	}
	return db, nil
}

// configFlags are the flags that take a configuration and change it.
type configFlags struct {
	file string
	set  []func(*Config) error
}

func (f *configFlags) register(fs *flag.FlagSet, serve bool) {
	fs.StringVar(&f.file, "config", "", "configuration `file`; flags override it")
	str := func(name, usage string, set func(c *Config, v string) error) {
		fs.Func(name, usage, func(v string) error {
			var probe Config
			if err := set(&probe, v); err != nil {
				return err
			}
			f.set = append(f.set, func(c *Config) error { return set(c, v) })
			return nil
		})
	}
	// Of a flag that can be given more than once, the first overrides the file too.
	list := func(name, usage string, set func(c *Config, v string, first bool) error) {
		given := false
		fs.Func(name, usage, func(v string) error {
			first := !given
			given = true
			f.set = append(f.set, func(c *Config) error { return set(c, v, first) })
			return set(&Config{}, v, first)
		})
	}
	str("zone", "the zone's `name`", func(c *Config, v string) error { c.Zone.Zone = v; return nil })
	str("keys", "`folder` of the zone's keys", func(c *Config, v string) error { c.Keys = v; return nil })
	str("state", "`folder` of the index", func(c *Config, v string) error { c.State = v; return nil })
	str("mode", "`follow` the whole log, or watch some modules", func(c *Config, v string) error { c.Log.Mode = v; return nil })
	if !serve {
		return
	}
	list("listen", "`address` for UDP and TCP; may be given more than once or with commas; port 0 is a free one", func(c *Config, v string, first bool) error {
		addList(&c.Listen, v, first)
		return nil
	})
	str("dot", "`address` for DNS over TLS", func(c *Config, v string) error { c.TLS.DoT = v; return nil })
	str("doq", "`address` for DNS over QUIC", func(c *Config, v string) error { c.TLS.DoQ = v; return nil })
	str("doh", "`address` for DNS over HTTPS", func(c *Config, v string) error { c.TLS.DoH = v; return nil })
	str("certificate", "PEM `file` of the certificate for them", func(c *Config, v string) error { c.TLS.Certificate = v; return nil })
	str("certificate-key", "PEM `file` of its key", func(c *Config, v string) error { c.TLS.Key = v; return nil })
	str("http", "`address` for metrics and the page of the index", func(c *Config, v string) error { c.HTTP = v; return nil })
	list("ns", "name server, `name=address[,address]`; may be given more than once", func(c *Config, v string, first bool) error {
		name, addrs, _ := strings.Cut(v, "=")
		ns := dnsserver.NameServer{Name: name}
		for a := range strings.SplitSeq(addrs, ",") {
			if a == "" {
				continue
			}
			addr, err := netip.ParseAddr(a)
			if err != nil {
				return err
			}
			ns.Addresses = append(ns.Addresses, addr)
		}
		if first {
			c.Zone.NameServers = nil
		}
		c.Zone.NameServers = append(c.Zone.NameServers, ns)
		return nil
	})
	str("database", "checksum database in the form of `GOSUMDB`", func(c *Config, v string) error { c.Log.Database = v; return nil })
	str("url", "`URL` of the checksum database", func(c *Config, v string) error { c.Log.URL = v; return nil })
	str("proxy", "module proxies in the form of `GOPROXY`", func(c *Config, v string) error { c.Log.Proxy = v; return nil })
	fs.BoolFunc("seen-time", "the time of a version is when this server saw it (for a small private log)", func(v string) error {
		on, err := strconv.ParseBool(v)
		f.set = append(f.set, func(c *Config) error { c.Log.SeenTime = on; return nil })
		return err
	})
	str("tiles", "`folder` that keeps the log's tiles", func(c *Config, v string) error { c.Log.Tiles = v; return nil })
	str("interval", "`time` between two polls, like 30s", func(c *Config, v string) error {
		return c.Log.Interval.UnmarshalText([]byte(v))
	})
	str("stale-after", "`time` without word from the log after which modules are answered SERVFAIL", func(c *Config, v string) error {
		return c.Zone.StaleAfter.UnmarshalText([]byte(v))
	})
	str("ttl", "`time` that resolvers keep answers", func(c *Config, v string) error {
		if err := c.Zone.TTL.UnmarshalText([]byte(v)); err != nil {
			return err
		}
		c.Zone.NegativeTTL = c.Zone.TTL
		return nil
	})
	list("watch", "`module` to watch; may be given more than once or with commas; sets -mode watch", func(c *Config, v string, first bool) error {
		c.Log.Mode = "watch"
		addList(&c.Watch.Modules, v, first)
		return nil
	})
}

// addList adds values to a list, first in place of those that it had.
func addList(list *[]string, v string, first bool) {
	if first {
		*list = nil
	}
	for s := range strings.SplitSeq(v, ",") {
		if s = strings.TrimSpace(s); s != "" && !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
}

// A need is how much of the configuration a command uses.
type need int

const (
	needIndex need = iota // the folder of the index
	needZone              // and the zone's name
	needAll
)

// load reads the file, applies the flags and checks what is needed.
func (f *configFlags) load(n need) (Config, error) {
	c := defaultConfig()
	if f.file != "" {
		if err := config.Load(f.file, &c); err != nil {
			return c, err
		}
		dir := filepath.Dir(f.file)
		for _, p := range []*string{&c.Keys, &c.State, &c.TLS.Certificate, &c.TLS.Key, &c.TLS.Roots,
			&c.Page.Cert, &c.Page.Key, &c.Page.Roots, &c.Limits.Cookies, &c.Log.Tiles} {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			}
		}
	}
	for _, set := range f.set {
		if err := set(&c); err != nil {
			return c, err
		}
	}
	if n == needAll {
		if err := c.check(); err != nil {
			if f.file != "" {
				return c, fmt.Errorf("%s: %w", f.file, err)
			}
			return c, err
		}
	} else if n == needZone && c.Zone.Zone == "" {
		return c, cli.Usagef("the zone is not known: give -zone or -config")
	}
	return c, nil
}

// run is the Run of a command that needs so much of the configuration.
func (f *configFlags) run(n need, do func(ctx context.Context, c Config) error) func(context.Context, []string) error {
	return func(ctx context.Context, _ []string) error {
		c, err := f.load(n)
		if err != nil {
			return err
		}
		return do(ctx, c)
	}
}

func configDefaultCommand() *cli.Command {
	return &cli.Command{
		Name:    "config default",
		Short:   "print a configuration with every key, its default and what it means",
		Example: "upkeep-dns config default >/etc/upkeep-dns.toml",
		Run: func(ctx context.Context, args []string) error {
			return writeDefault(os.Stdout)
		},
	}
}

func writeDefault(w io.Writer) error {
	text, err := config.Default(defaultConfig())
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

func configCheckCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name:    "config check",
		Short:   "check a configuration and the keys it names",
		Example: "upkeep-dns config check -config /etc/upkeep-dns.toml",
		Flags:   func(fs *flag.FlagSet) { f.register(fs, true) },
		Run: f.run(needAll, func(ctx context.Context, c Config) error {
			if _, err := c.Log.fill(ctx); err != nil {
				return err
			}
			keys, err := loadKeys(c)
			if err != nil {
				return err
			}
			if err := dnsserver.CheckZone(c.Zone, keys, time.Now()); err != nil {
				return err
			}
			if text := c.flaps(); text != "" {
				fmt.Fprintln(os.Stderr, "upkeep-dns: warning:", text)
			}
			fmt.Println("The configuration is good.")
			return nil
		}),
	}
}
