package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/web"
)

// Config is the program's configuration file.
type Config struct {
	Listen  string         `toml:"listen" comment:"Address to answer on. Port 0 is a free one, which is printed."`
	Hosts   []string       `toml:"hosts" comment:"Names that the pages are reached under, without port. localhost and the address itself always work."`
	Metrics string         `toml:"metrics" comment:"Address that serves /metrics alone. Empty: on listen, for everybody who reaches it."`
	State   string         `toml:"state" comment:"Folder of the log, the binaries and everything else. It must outlive restarts, and users that\nbuilds run as must be able to enter it. Relative to this file's folder."`
	Key     string         `toml:"key" comment:"File of the log's secret key, see 'upkeep-build keygen'. Relative to this file's folder."`
	TLS     web.TLS        `toml:"tls" comment:"TLS on the address listen."`
	Modules ModulesConfig  `toml:"modules" comment:"Where modules come from."`
	Build   builder.Config `toml:"build" comment:"Builds."`
	Sandbox SandboxConfig  `toml:"sandbox" comment:"Confinement of builds. Without a part of it the server does not start, unless its loss is accepted\nhere; every result page says so then."`
}

// ModulesConfig says where modules come from.
type ModulesConfig struct {
	Proxy    string `toml:"proxy" comment:"Module proxies in the form of GOPROXY. Empty is what GOPROXY says, or 'go env'."`
	Database string `toml:"database" comment:"The checksum database in the form of GOSUMDB: \"sum.golang.org\", or a verifier key (name+hash+key),\nperhaps with a URL behind it. Empty is what GOSUMDB says, or 'go env'."`
}

// SandboxConfig says how builds are confined.
type SandboxConfig struct {
	None    bool     `toml:"none" comment:"No confinement at all. Only for a machine that builds nothing but source its owner trusts."`
	Without []string `toml:"without" comment:"Mechanisms whose loss is accepted: \"cgroup\", \"landlock\"."`
	User    int      `toml:"user" comment:"User and group number of builds when the server runs as root. 0: 64998."`
}

func defaultConfig() Config {
	return Config{Listen: "localhost:8000", Hosts: []string{}, State: "/var/lib/upkeep-build", Key: "/var/lib/upkeep-build.key",
		Build: builder.DefaultConfig(), Sandbox: SandboxConfig{Without: []string{}}}
}

func (c *Config) check() error {
	for _, w := range c.Sandbox.Without {
		if w != sandbox.Cgroup && w != sandbox.Landlock {
			return fmt.Errorf("sandbox.without: %q is neither %q nor %q", w, sandbox.Cgroup, sandbox.Landlock)
		}
	}
	if c.State == "" || c.Key == "" || c.Listen == "" {
		return errors.New("listen, state and key can't be empty")
	}
	if err := c.Build.Check(); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	listen := c.TLS.Listen(c.Listen, c.Hosts, c.State, slog.Default())
	listen.Login, listen.Plain = true, true // the pages are for everybody
	if err := listen.Check(); err != nil {
		return fmt.Errorf("listen and tls: %w", err)
	}
	return nil
}

// fill completes what the configuration leaves to the environment.
func (m *ModulesConfig) fill(ctx context.Context) (goproxy.SumDB, error) {
	if m.Proxy == "" || m.Database == "" {
		env, err := goproxy.FromEnv(ctx)
		if err != nil && (m.Proxy == "" || !errors.Is(err, goproxy.ErrNoProxy)) {
			return goproxy.SumDB{}, cli.Hint(fmt.Errorf("modules.proxy: %w", err), "Set modules.proxy in the configuration, the flag -proxy or GOPROXY.")
		}
		if m.Proxy == "" {
			m.Proxy = env.GOPROXY
		}
		if m.Database == "" {
			m.Database = env.GOSUMDB
		}
	}
	if m.Database == "" {
		m.Database = "sum.golang.org"
	}
	db, err := goproxy.ParseSumDB(m.Database)
	if err != nil {
		return db, fmt.Errorf("modules.database: %w", err)
	}
	if _, err := goproxy.New(m.Proxy, http.DefaultClient); err != nil {
		return db, fmt.Errorf("modules.proxy: %w", err)
	}
	return db, nil
}

// readKey returns the log's secret key.
func (c *Config) readKey() (string, error) {
	data, err := os.ReadFile(c.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return "", cli.Hint(fmt.Errorf("the log's key: %w", err), "Make one: upkeep-build keygen -key %s NAME", c.Key)
	}
	if err != nil {
		return "", fmt.Errorf("the log's key: %w", err)
	}
	key := strings.TrimSpace(string(data))
	if _, err := note.NewSigner(key); err != nil {
		return "", fmt.Errorf("the log's key in %s: %w", c.Key, err)
	}
	return key, nil
}

// configFlags are the flags that take a configuration and change it.
type configFlags struct {
	file string
	set  []func(*Config)
}

func (f *configFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.file, "config", "", "configuration `file`; flags override it")
	str := func(name, usage string, field func(c *Config) *string) {
		fs.Func(name, usage, func(v string) error {
			f.set = append(f.set, func(c *Config) { *field(c) = v })
			return nil
		})
	}
	// Of a flag that can be given more than once, the first overrides the file too.
	list := func(name, usage string, field func(c *Config) *[]string) {
		given := false
		fs.Func(name, usage, func(v string) error {
			first := !given
			given = true
			f.set = append(f.set, func(c *Config) {
				l := field(c)
				if first {
					*l = nil
				}
				for e := range strings.SplitSeq(v, ",") {
					if e = strings.TrimSpace(e); e != "" && !slices.Contains(*l, e) {
						*l = append(*l, e)
					}
				}
			})
			return nil
		})
	}
	str("listen", "`address` to answer on; port 0 is a free one", func(c *Config) *string { return &c.Listen })
	str("state", "`folder` of the log, the binaries and everything else", func(c *Config) *string { return &c.State })
	str("key", "`file` of the log's secret key", func(c *Config) *string { return &c.Key })
	str("proxy", "module proxies in the form of `GOPROXY`", func(c *Config) *string { return &c.Modules.Proxy })
	str("database", "checksum database in the form of `GOSUMDB`", func(c *Config) *string { return &c.Modules.Database })
	list("goroot", "`folder` of an installed Go, offered for its own version; may be given more than once or with commas", func(c *Config) *[]string { return &c.Build.GoRoot })
	list("hosts", "`names` that the pages are reached under, with commas", func(c *Config) *[]string { return &c.Hosts })
	list("without", "`mechanism` of the sandbox whose loss is accepted: cgroup or landlock", func(c *Config) *[]string { return &c.Sandbox.Without })
	fs.BoolFunc("no-sandbox", "build without any confinement; every result page says so", func(v string) error {
		if v != "true" && v != "false" {
			return fmt.Errorf("is true or false")
		}
		f.set = append(f.set, func(c *Config) { c.Sandbox.None = v == "true" })
		return nil
	})
}

// load reads the file and applies the flags.
func (f *configFlags) load() (Config, error) {
	c := defaultConfig()
	if f.file != "" {
		if err := config.Load(f.file, &c); err != nil {
			return c, err
		}
		dir := filepath.Dir(f.file)
		for _, p := range []*string{&c.State, &c.Key, &c.TLS.Cert, &c.TLS.Key, &c.TLS.Roots} {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			}
		}
	}
	for _, set := range f.set {
		set(&c)
	}
	if err := c.check(); err != nil {
		if f.file != "" {
			return c, fmt.Errorf("%s: %w", f.file, err)
		}
		return c, err
	}
	return c, nil
}

func configDefaultCommand() *cli.Command {
	return &cli.Command{
		Name: "config default", Short: "print a configuration with every key, its default and what it means",
		Example: "upkeep-build config default >/etc/upkeep-build.toml",
		Run: func(ctx context.Context, args []string) error {
			text, err := config.Default(defaultConfig())
			if err == nil {
				_, err = os.Stdout.Write(text)
			}
			return err
		},
	}
}

func configCheckCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name: "config check", Short: "check a configuration and the key it names",
		Example: "upkeep-build config check -config /etc/upkeep-build.toml",
		Flags:   f.register,
		Run: func(ctx context.Context, args []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			if _, err := c.Modules.fill(ctx); err != nil {
				return err
			}
			if _, err := c.readKey(); err != nil {
				return err
			}
			fmt.Println("The configuration is good.")
			return nil
		},
	}
}
