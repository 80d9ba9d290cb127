package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/builder/toolchain"
)

// A build is one run of the pipeline: check, fetch with network, compile
// without, take out.
type build struct {
	s     *Service
	spec  spec.Spec
	large bool         // may have all memory
	again bool         // an earlier try failed
	live  func(string) // lines for people

	tc     toolchain.Toolchain
	target toolchain.Target
	std    *stdCache
	deps   *stdCache // compiled dependencies; nil: not shared
	dir    string    // of this build, deleted afterwards
	steps  []Step
	cpu    time.Duration // of the current step
	clean  func()
}

// A built is the outcome of a good build.
type built struct {
	record    spec.Record
	sha256    [32]byte
	toolchain string
	steps     []Step
	started   time.Time
	took      time.Duration
}

// Names under which the commands of a build find things.
func (b *build) mounts() (goroot, mod, gopath, std, work, proxy sandbox.Mount) {
	return sandbox.Mount{Source: b.tc.Root, Target: "/goroot"},
		sandbox.Mount{Source: b.s.modCache, Target: "/mod"},
		sandbox.Mount{Source: b.s.goPath, Target: "/gopath"},
		sandbox.Mount{Source: b.std.dir, Target: "/std"},
		sandbox.Mount{Source: b.dir, Target: "/work", Write: true},
		sandbox.Mount{Source: b.dir + ".proxy", Target: "/proxy"}
}

func (b *build) step(name string, f func() error) error {
	start := time.Now()
	b.cpu = 0
	err := f()
	b.steps = append(b.steps, Step{name, time.Since(start).Round(time.Millisecond), b.cpu.Round(time.Millisecond)})
	return err
}

// run builds the spec and stores the binary. Its errors are [*Failure].
func (b *build) run(ctx context.Context) (built, error) {
	b.target = toolchain.Target{GOOS: b.spec.GOOS, GOARCH: b.spec.GOARCH}
	if err := b.step("check", func() error { return b.check(ctx) }); err != nil {
		return built{}, failureOf(err)
	}
	if err := b.step("toolchain", func() error { return b.getToolchain(ctx) }); err != nil {
		return built{}, failureOf(err)
	}
	b.clean = b.removeFolders
	if err := b.prepare(); err != nil {
		b.clean()
		return built{}, failureOf(err)
	}
	defer func() { b.clean() }()
	var std []string
	err := b.step("fetch", func() (err error) { std, err = b.fetch(ctx); return err })
	if err != nil {
		return built{}, failureOf(err)
	}
	if len(std) > 0 {
		if err := b.step("standard library", func() error { return b.fillStd(ctx, std) }); err != nil {
			return built{}, failureOf(err)
		}
	}
	if err := b.step("compile", func() error { return b.compile(ctx) }); err != nil {
		return built{}, failureOf(err)
	}
	var res built
	err = b.step("store", func() (err error) { res, err = b.takeOut(); return err })
	if err != nil {
		return built{}, failureOf(err)
	}
	res.toolchain, res.steps = b.tc.Sum, b.steps
	if b.deps != nil {
		// Nobody waits for that.
		c := *b
		b.clean = func() {}
		b.s.background.Go(func() {
			defer c.removeFolders()
			c.share()
		})
	}
	return res, nil
}

// share gives other builds what this one compiled.
func (b *build) share() {
	b.deps.touch(filepath.Join(b.dir, "cache"))
	if size, count := b.deps.sizeAndCount(); size > int64(b.s.cfg.Share)<<20 || count > maxSharedFiles {
		b.s.askTrim()
		return
	}
	files, err := shareable(filepath.Join(b.dir, "cache"))
	if err == nil && len(files) > 0 {
		err = b.deps.adopt(filepath.Join(b.dir, "cache"), files)
	}
	if err != nil {
		b.s.logger.Warn("sharing compiled packages", "spec", b.spec.String(), "err", err)
	}
}

// maxSharedFiles bounds the links that each build has to make.
const maxSharedFiles = 40_000

// check asks for what can be known without downloading the module.
func (b *build) check(ctx context.Context) error {
	if err := b.s.allowed(b.spec); err != nil { // the lists may have changed since it was queued
		return err
	}
	b.live("Checking " + b.spec.Module + "@" + b.spec.Version + ".")
	ctx, cancel := context.WithTimeoutCause(ctx, b.s.cfg.FetchTimeout.D(), errProxySlow)
	defer cancel()
	info, err := b.s.src.Proxy.Info(ctx, b.spec.Module, b.spec.Version)
	if err != nil {
		return err
	}
	if info.Version != b.spec.Version {
		// Not for good: that is only what the module proxy says.
		return unknown(fmt.Sprintf("Version %s of %s is called %s.", b.spec.Version, b.spec.Module, info.Version))
	}
	data, err := b.s.src.GoMod(ctx, module.Version{Path: b.spec.Module, Version: b.spec.Version})
	if err != nil {
		return err
	}
	if f := checkGoMod(data, b.spec); f != nil {
		return f
	}
	return nil
}

func (b *build) getToolchain(ctx context.Context) error {
	tc, err := b.s.toolchains.Get(ctx, b.spec.GoVersion, b.live)
	if err != nil {
		return err
	}
	if !tc.Targets[b.target] {
		return notFound(fmt.Sprintf("%s has no working target %s.", tc.Version, b.target))
	}
	b.tc = tc
	return nil
}

// prepare makes the folders of the build.
func (b *build) prepare() error {
	var err error
	// The index of package folders that the go command caches holds their paths.
	b.std, err = b.s.std.get(b.tc, b.target, b.s.sb.Path(sandbox.Mount{Source: b.tc.Root, Target: "/goroot"}))
	if err != nil {
		return err
	}
	if err := b.s.sb.Own(b.std.dir); err != nil {
		return err
	}
	if b.s.deps != nil {
		if b.deps, err = b.s.deps.get(b.tc, b.target, "/goroot"); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp(b.s.workDir, "build-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	for _, sub := range []string{"home", "gopath", "tmp"} {
		if err := os.Mkdir(filepath.Join(b.dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := b.writeProxy(); err != nil {
		return err
	}
	return b.link()
}

// writeProxy makes the module proxy that the compile step sees: it knows the
// one version, which the go command asks about even when it has everything.
func (b *build) writeProxy() error {
	esc, err := module.EscapePath(b.spec.Module)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir+".proxy", filepath.FromSlash(esc), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "list"), []byte(b.spec.Version+"\n"), 0o644)
}

// link gives the build's own cache a link for each compiled standard package.
func (b *build) link() error {
	_, _, _, std, _, _ := b.mounts()
	if err := b.std.layer(filepath.Join(b.dir, "cache"), b.s.sb.Path(std)); err != nil {
		return err
	}
	if b.deps != nil {
		if err := b.deps.layer(filepath.Join(b.dir, "cache"), depsTarget); err != nil {
			return err
		}
	}
	return b.s.sb.Own(b.dir)
}

// depsTarget is where commands find compiled dependencies.
const depsTarget = "/deps"

// baseMounts are what every command of a build sees, read-only but for its own folder.
func (b *build) baseMounts() []sandbox.Mount {
	goroot, mod, _, std, work, _ := b.mounts()
	m := []sandbox.Mount{goroot, mod, std, work}
	if b.deps != nil {
		m = append(m, sandbox.Mount{Source: b.deps.dir, Target: depsTarget})
	}
	return m
}

func (b *build) removeFolders() {
	if b.dir == "" {
		return
	}
	for _, dir := range []string{b.dir, b.dir + ".proxy"} {
		if err := removeAll(dir); err != nil {
			b.s.logger.Warn("removing a build's folder", "err", err)
		}
	}
}

// env returns what all commands of the build share.
func (b *build) env() []string {
	p := b.s.sb.Path
	goroot, mod, _, _, work, _ := b.mounts()
	w := p(work)
	return []string{
		"PATH=" + p(goroot) + "/bin", "GOROOT=" + p(goroot), "HOME=" + w + "/home", "TMPDIR=" + w + "/tmp",
		"GOMODCACHE=" + p(mod), "GOCACHE=" + w + "/cache",
		"GOOS=" + b.spec.GOOS, "GOARCH=" + b.spec.GOARCH, "CGO_ENABLED=0",
		"GOTOOLCHAIN=local", "GOENV=off", "GOWORK=off", "GO111MODULE=on", "GOTELEMETRY=off",
		"GOVCS=*:off", "GOINSECURE=", "GOPRIVATE=", "GONOPROXY=", "GONOSUMDB=", "GOAUTH=off", "GODEBUG=", "GOEXPERIMENT=",
	}
}

func (b *build) collector() []string {
	return collector(b.s.memory(b.large), runtime.NumCPU(), b.again)
}

// install returns the command that the bytes of a build are defined by.
func (b *build) install(extra ...string) []string {
	goroot, _, _, _, _, _ := b.mounts()
	ldflags := "-buildid="
	if b.spec.Stripped {
		ldflags += " -s"
	}
	args := []string{b.s.sb.Path(goroot) + "/bin/go" + exe(), "install"}
	args = append(args, extra...)
	return append(args, "-trimpath", "-ldflags="+ldflags, "--", b.spec.Package()+"@"+b.spec.Version)
}

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// fetch downloads the module and what it needs, verified by the go command in
// the checksum database, and returns the standard packages that are not
// compiled yet.
func (b *build) fetch(ctx context.Context) ([]string, error) {
	b.live("Fetching the module and its dependencies.")
	p := b.s.sb.Path
	_, mod, gopath, _, work, _ := b.mounts()
	gopath.Write = true
	mounts := append(b.baseMounts(), gopath)
	for i := range mounts {
		mounts[i].Write = mounts[i].Write || mounts[i].Target == mod.Target
	}
	pl := &plan{live: func(l string) { b.live(b.s.hide(l)) }}
	out := &lines{emit: pl.line}
	env := append(b.env(), "GOPROXY="+b.s.goProxy, "GOSUMDB="+b.s.goSumDB, "GOPATH="+p(gopath), "GOFLAGS=-modcacherw")
	env = append(env, b.s.netEnv...)
	err := b.runGo(ctx, sandbox.Job{
		Args: b.install("-n"), Env: env, Dir: p(work),
		Mounts:  append(mounts, b.s.netMounts...),
		Network: true,
		Limits:  b.s.limits(b.s.cfg.FetchTimeout.D(), b.large),
		Output:  out,
	})
	out.flush()
	if err != nil {
		said := b.s.hide(strings.Join(pl.said, "\n"))
		for l := range strings.Lines(said) {
			if !strings.HasPrefix(l, "go: downloading") {
				b.live(strings.TrimSpace(l))
			}
		}
		f := classify(said, err, true)
		var alarm *alarmError
		if errors.As(f, &alarm) && !b.lied(ctx, said) {
			b.s.logger.Error("the go command says that a module is not what the checksum database records, which this server finds it is; source can make it say so", "spec", b.spec.String(), "text", f.Text)
			f = temporary("The go command says that a module is not what the checksum database records; this server finds that it is.", err)
		}
		return nil, f
	}
	return pl.standard(func(pkg string) bool {
		fi, err := os.Stat(filepath.Join(b.tc.Root, "src", filepath.FromSlash(pkg)))
		return err == nil && fi.IsDir()
	}), nil
}

// fillStd compiles standard packages that no build needed before.
func (b *build) fillStd(ctx context.Context, pkgs []string) error {
	b.live(fmt.Sprintf("Compiling %d packages of the standard library of %s for %s, once.", len(pkgs), b.tc.Version, b.target))
	p := b.s.sb.Path
	goroot, _, _, std, _, _ := b.mounts()
	std.Write = true
	var said []string
	err := b.std.fill(func(string) error {
		// A folder of its own: the build's one is written by commands that read foreign source.
		dir, err := os.MkdirTemp(b.s.workDir, "std-")
		if err != nil {
			return err
		}
		defer removeAll(dir)
		if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o755), b.s.sb.Own(dir)); err != nil {
			return err
		}
		work := sandbox.Mount{Source: dir, Target: "/work", Write: true}
		out := &lines{emit: func(l string) { said = append(said, l) }}
		env := slices.DeleteFunc(b.env(), func(kv string) bool {
			return strings.HasPrefix(kv, "GOMODCACHE=") || strings.HasPrefix(kv, "GOCACHE=") || strings.HasPrefix(kv, "HOME=") || strings.HasPrefix(kv, "TMPDIR=")
		})
		env = append(env, b.collector()...)
		env = append(env, "GOCACHE="+p(std), "GOMODCACHE="+p(work)+"/mod", "HOME="+p(work), "GOPATH="+p(work)+"/gopath", "TMPDIR="+p(work)+"/tmp",
			"GOPROXY=off", "GOSUMDB=off", "GOFLAGS=")
		err = b.s.sb.Run(ctx, sandbox.Job{
			Args: append([]string{p(goroot) + "/bin/go" + exe(), "build", "-trimpath", "--"}, pkgs...),
			Env:  env, Dir: p(work), Mounts: []sandbox.Mount{goroot, std, work},
			Limits: b.s.limits(b.s.cfg.CompileTimeout.D(), b.large), Output: out,
			CPU: func(d time.Duration) { b.cpu += d },
		})
		out.flush()
		return err
	})
	if err != nil && ctx.Err() != nil {
		return temporary("The build was cancelled.", err)
	}
	if err != nil {
		text := strings.Join(said, "\n")
		b.s.logger.Error("compiling the standard library", "go", b.tc.Version, "target", b.target, "err", err, "output", text)
		return temporary("The build server could not compile the standard library for this target.", err)
	}
	return b.link()
}

// compile runs go install without network on what was fetched.
func (b *build) compile(ctx context.Context) error {
	b.live("Compiling.")
	p := b.s.sb.Path
	_, _, _, _, work, proxy := b.mounts()
	var said strings.Builder
	out := &lines{emit: func(l string) {
		if said.Len() < maxOutput {
			l = b.s.hide(l)
			said.WriteString(l + "\n")
			b.live(l)
		}
	}}
	var extra []string
	if b.deps != nil {
		extra = append(extra, "-toolexec="+b.s.sb.Tool())
		if err := b.link(); err != nil { // what other builds have shared since the start of this one
			return err
		}
	}
	err := b.runGo(ctx, sandbox.Job{
		Args: b.install(extra...),
		Env:  append(append(b.env(), b.collector()...), "GOPATH="+p(work)+"/gopath", "GOPROXY=file://"+p(proxy), "GOSUMDB=off", "GOFLAGS="),
		Dir:  p(work), Mounts: append(b.baseMounts(), proxy),
		Limits: b.s.limits(b.s.cfg.CompileTimeout.D(), b.large), Output: out,
	})
	out.flush()
	if err != nil {
		return classify(said.String(), err, false)
	}
	return nil
}
