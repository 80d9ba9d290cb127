package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/term"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
)

// sourceFlags are the flags that say where versions and binaries come from, for
// use without a configuration file or to differ from it.
type sourceFlags struct {
	file    string
	zone    string
	sources multi
	anchor  string
	trust   string

	key, builder, proxy, sumdb, ca string

	fs *flag.FlagSet
}

type multi []string

func (m *multi) String() string     { return strings.Join(*m, " ") }
func (m *multi) Set(s string) error { *m = append(*m, s); return nil }

func (f *sourceFlags) discovery(fs *flag.FlagSet) {
	f.fs = fs
	fs.StringVar(&f.file, "config", "", "configuration `file` (default "+defaultConfigFile+" if there is one)")
	fs.StringVar(&f.zone, "zone", "", "`zone` with the latest versions")
	fs.Var(&f.sources, "source", "`where` to ask, like udp://192.0.2.53 or server://192.0.2.1:53; may be repeated (default the system's resolvers)")
	fs.StringVar(&f.anchor, "anchor", "", "`file` with the zone's pinned keys (default the chain from the root zone)")
	fs.StringVar(&f.trust, "trust", "", "`how` answers are validated: dnssec (here) or resolver (AD bit of a resolver on loopback) (default dnssec)")
}

func (f *sourceFlags) building(fs *flag.FlagSet) {
	fs.StringVar(&f.key, "key", "", "verifier `key` of the builder's log: name+hash+key")
	fs.StringVar(&f.builder, "builder", "", "`address` of the builder (default made from the key's name)")
	fs.StringVar(&f.proxy, "proxy", "", "module `proxies` (default GOPROXY or what go env says)")
	fs.StringVar(&f.sumdb, "sumdb", "", "checksum `database` (default GOSUMDB or what go env says)")
	fs.StringVar(&f.ca, "ca", "", "`file` with certificate authorities for the builder and the proxy (default the system's)")
}

// config returns the configuration that the file and the flags make together.
func (f *sourceFlags) config() (Config, error) {
	c := defaultConfig()
	c.State = ""
	file := f.file
	if file == "" {
		if _, err := os.Stat(defaultConfigFile); err == nil {
			file = defaultConfigFile
		} else if !errors.Is(err, fs.ErrNotExist) {
			return c, err
		}
	}
	if file != "" {
		var err error
		if c, err = loadConfig(file); err != nil {
			return c, err
		}
	}
	d, b := &c.Discovery, &c.Fetch
	if f.zone != "" {
		d.Zone, d.Also, d.Updates = f.zone, nil, ""
	}
	if len(f.sources) > 0 {
		d.Sources = f.sources
	}
	for _, o := range []struct{ to, from *string }{
		{&d.Anchor, &f.anchor}, {&d.Trust, &f.trust},
		{&b.Key, &f.key}, {&b.Builder, &f.builder}, {&b.Proxy, &f.proxy}, {&b.SumDB, &f.sumdb}, {&b.CA, &f.ca},
	} {
		if *o.from != "" {
			*o.to = *o.from
		}
	}
	if f.key != "" && f.builder == "" {
		b.Builder = ""
	}
	return c, nil
}

// environment fills in the proxy and the checksum database from the environment.
func environment(ctx context.Context, c *fetch.Config) error {
	if c.Proxy != "" && c.SumDB != "" {
		return nil
	}
	env, err := goproxy.FromEnv(ctx)
	if err != nil {
		if c.Proxy == "" {
			return cli.Hint(err, "Give it with -proxy, in the form of GOPROXY.")
		}
		return cli.Hint(errors.New("no checksum database is configured"), "Give it with -sumdb, in the form of GOSUMDB.")
	}
	if c.Proxy == "" {
		c.Proxy = env.GOPROXY
	}
	if c.SumDB == "" {
		c.SumDB = env.GOSUMDB
	}
	return nil
}

// userState is where commands keep the tree heads of logs when no configuration
// names a folder.
func userState() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "upkeep"), nil
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		dir, err := os.UserConfigDir()
		return filepath.Join(dir, "upkeep"), err
	}
	dir, err := os.UserHomeDir()
	return filepath.Join(dir, ".local", "state", "upkeep"), err
}

// A finder turns a command-line argument into a build.
type finder struct {
	cfg   Config
	disc  *discover.Discoverer // nil without a zone
	fetch *fetch.Fetcher
	say   func(format string, args ...any)
	out   io.Writer // for how far a build is

	goos, goarch, goVersion string
	stripped                bool
}

func newFinder(ctx context.Context, cfg Config, say func(string, ...any)) (*finder, error) {
	f := &finder{cfg: cfg, say: say, out: os.Stderr, goos: runtime.GOOS, goarch: runtime.GOARCH}
	if cfg.Fetch.Key == "" {
		return nil, cli.Hint(errors.New("no builder is configured"), "Give the verifier key of its log with -key (name+hash+key), or a configuration with -config.")
	}
	if err := environment(ctx, &cfg.Fetch); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Fetch.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if f.fetch, err = fetch.New(cfg.Fetch, fetch.Options{}); err != nil {
		return nil, err
	}
	f.cfg = cfg
	if cfg.Discovery.Zone != "" {
		if f.disc, err = discover.New(cfg.Discovery, discover.Options{Dir: filepath.Join(cfg.State, "discovery"), ReadOnly: true, Fallback: f.fetch}); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *finder) close() {
	f.fetch.Close()
	if f.disc != nil {
		f.disc.Close()
	}
}

// find returns the build that MODULE[/CMD][@VERSION] means on this machine.
func (f *finder) find(ctx context.Context, arg string) (spec.Spec, error) {
	// The builder's key is checked first: with a wrong one nothing else is asked of anybody.
	if _, err := f.fetch.Update(ctx); err != nil {
		return spec.Spec{}, logHint(err)
	}
	pkg, version, _ := strings.Cut(arg, "@")
	if err := module.CheckImportPath(pkg); err != nil {
		return spec.Spec{}, cli.Usagef("%q is not MODULE[/CMD][@VERSION]: %w", arg, err)
	}
	split, err := f.fetch.Split(ctx, pkg)
	if err != nil {
		return spec.Spec{}, err
	}
	s := spec.Spec{Module: split.Module, Dir: split.Dir, GOOS: f.goos, GOARCH: f.goarch, GoVersion: f.goVersion, Stripped: f.stripped}
	exact := version != "" && version != spec.Latest
	if exact && (module.Check(s.Module, version) != nil || module.CanonicalVersion(version) != version) {
		return spec.Spec{}, cli.Usagef("%q is not an exact version of %s, like v1.2.3", version, s.Module)
	}
	var toolchain []name.Entry
	if f.disc != nil && (!exact || f.goVersion == "") {
		a, err := f.disc.Ask(ctx, s.Module)
		toolchain = a.Toolchain
		switch {
		case err == nil && !exact && len(a.Versions) > 0:
			version = a.Versions[0].Version
			f.say("newest version %s, by %s, %s", version, a.Source, a.Proof)
		case err == nil:
		case exact && (errors.Is(err, discover.ErrNotFound) || errors.Is(err, discover.ErrUnreachable)):
			f.say("note: %v", err)
		default:
			return spec.Spec{}, err
		}
	}
	if version == "" || version == spec.Latest {
		list, err := f.fetch.Versions(ctx, s.Module)
		if err != nil {
			return spec.Spec{}, err
		}
		if len(list) == 0 {
			return spec.Spec{}, fmt.Errorf("%s has no release; name an exact version, like %s@v0.0.0-…", s.Module, pkg)
		}
		version = list[0].Version
		f.say("newest version %s, by %s", version, f.fetch.Describe())
	}
	s.Version = version
	if err := f.fetch.VerifyVersion(ctx, s.Module, s.Version); err != nil {
		return spec.Spec{}, err
	}
	f.say("%s@%s is in the checksum database %s", s.Module, s.Version, f.fetch.SumDB())
	if s.GoVersion == "" {
		if s.GoVersion, err = f.goRelease(ctx, toolchain); err != nil {
			return spec.Spec{}, err
		}
	}
	return s, s.Check()
}

// goRelease returns the newest Go release that is known.
func (f *finder) goRelease(ctx context.Context, toolchain []name.Entry) (string, error) {
	for _, e := range toolchain {
		if e.Kind == "cur" || e.Kind == "" {
			f.say("newest Go %s, by the zone %s", e.Version, f.cfg.Discovery.Zone)
			return e.Version, nil
		}
	}
	v, err := f.fetch.LatestGo(ctx, f.goos, f.goarch)
	if err != nil {
		return "", cli.Hint(fmt.Errorf("finding the newest Go: %w", err), "Name a Go version with -go, like -go go1.26.3.")
	}
	f.say("newest Go %s, by %s", v, f.fetch.Describe())
	return v, nil
}

// obtain looks the build up, waiting for the builder, and downloads it to file.
func (f *finder) obtain(ctx context.Context, s spec.Spec, file string) (fetch.Proof, error) {
	out := &progress{w: f.out, tty: f.out == os.Stderr && term.IsTerminal(int(os.Stderr.Fd()))}
	defer out.end()
	out.line("asking %s for %s", f.fetch.Builder(), s)
	p, err := f.fetch.Lookup(ctx, s, func(p fetch.Progress) {
		switch p.State {
		case "queued":
			out.update("waiting: number %d in the builder's queue", p.Position)
		case "building":
			out.update("building")
		}
	})
	if err != nil {
		return p, f.explain(ctx, s, err)
	}
	out.line("record %d of the log %s, under a tree of %d records: %d bytes, sum %s", p.Index, f.fetch.Name(), p.Head.Size, p.Record.Size, p.Record.Sum)
	err = f.fetch.Download(ctx, p, file, func(done, total int64) {
		out.update("downloading: %d%% of %.1f MB", done*100/total, float64(total)/1e6)
	})
	if err == nil {
		out.line("verified: size, sum and build information are the record's")
	}
	return p, logHint(err)
}

// explain adds to a refused build what the person can do: often the argument
// was a library or a module whose commands are in folders.
func (f *finder) explain(ctx context.Context, s spec.Spec, err error) error {
	var be *fetch.BuildError
	if !errors.As(err, &be) || !be.Permanent {
		return logHint(err)
	}
	pkgs, perr := f.fetch.Packages(ctx, s.Module, s.Version, s.GOOS, s.GOARCH)
	if perr != nil || slices.Contains(pkgs.Commands, s.Dir) {
		return err // the builder's words say the rest
	}
	what := fmt.Errorf("%s has no package %s", s.Module+"@"+s.Version, s.Package())
	if slices.Contains(pkgs.Libraries, s.Dir) {
		what = fmt.Errorf("%s of %s@%s is a library, not a command", s.Package(), s.Module, s.Version)
	}
	var commands []string
	for _, d := range pkgs.Commands {
		c := s
		c.Dir = d
		commands = append(commands, c.Package())
	}
	if len(commands) == 0 {
		return cli.Hint(what, "The module has no commands for %s-%s.", s.GOOS, s.GOARCH)
	}
	if len(commands) > 30 {
		commands = append(commands[:30], "…")
	}
	return cli.Hint(what, "The module's commands: %s", strings.Join(commands, ", "))
}

// logHint adds what to do when the log does not verify.
func logHint(err error) error {
	var v *fetch.VerifyError
	if !errors.As(err, &v) {
		return err
	}
	switch v.Kind {
	case fetch.BadSignature:
		return cli.Hint(err, "Nothing was downloaded. Compare the verifier key in the configuration with the one that the builder's operator publishes.")
	case fetch.LogFork:
		return cli.Hint(err, "Nothing was downloaded. Send the evidence to the operator of the builder and to others who use it: the log showed two histories.")
	}
	return err
}

// progress prints the state of something that takes long: in place on a
// terminal, else a line for each change.
type progress struct {
	w    io.Writer
	tty  bool
	last string
	at   time.Time
	open bool
}

func (p *progress) update(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if s == p.last || p.tty && time.Since(p.at) < 100*time.Millisecond || !p.tty && time.Since(p.at) < 2*time.Second && word(s) == word(p.last) {
		return
	}
	p.last, p.at = s, time.Now()
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%s", s)
		p.open = true
		return
	}
	fmt.Fprintln(p.w, s)
}

func word(s string) string { w, _, _ := strings.Cut(s, " "); return w }

func (p *progress) line(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *progress) end() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}
