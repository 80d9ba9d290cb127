package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/supervisor"
)

// demoZone is the zone that upkeep-dns serves here.
const demoZone = "l.upkeep.test."

// buildLogName is the name in the key of the demo's build log.
const buildLogName = "build.upkeep.test"

// demo is what the demo knows of its own set-up. What the programs do is read
// from outside, never from here.
type demo struct {
	options
	dir   string
	r     *reporter
	stack *stack

	source  target // what is supervised
	addr    addresses
	anchor  string // file with the zone's trust anchor, for delv
	proxy   string // GOPROXY
	sumdb   string // GOSUMDB
	logKey  string // verifier key of the build log
	browser *browser

	ecosystem, dns, build, upkeep *program

	httpRelay *httpRelay // between upkeep and upkeep-build, with -check
	dnsRelay  *dnsRelay  // between upkeep and upkeep-dns, with -check
}

// target is the program that upkeep looks after.
type target struct {
	module  string
	command string // package path
	version string // to begin with
	args    []string
}

// addresses on loopback, host:port.
type addresses struct {
	ecosystem, dns, dnsRelay, dnsWeb, build, buildRelay, web, service string
}

func webURL(addr string) string { return "http://" + addr }

func (d *demo) close() {
	d.stack.stop()
	if d.httpRelay != nil {
		d.httpRelay.close()
	}
	if d.dnsRelay != nil {
		d.dnsRelay.close()
	}
}

func (d *demo) real() bool { return d.module != "" }

// choosePorts finds free ports. They are fixed for the demo's life, so that a
// program that is started again is found where it was.
func (d *demo) choosePorts() error {
	for _, p := range []*string{
		&d.addr.ecosystem, &d.addr.dns, &d.addr.dnsRelay, &d.addr.dnsWeb,
		&d.addr.build, &d.addr.buildRelay, &d.addr.web, &d.addr.service,
	} {
		// The name server needs the same port for UDP and TCP.
		for range 100 {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			pc, err := net.ListenPacket("udp", ln.Addr().String())
			if err != nil {
				continue
			}
			defer pc.Close()
			*p = ln.Addr().String()
			break
		}
	}
	return nil
}

// buildPrograms compiles the three programs from the source tree.
func (d *demo) buildPrograms(ctx context.Context) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "example.org/upkeep/cmd/upkeep")
	var stderr strings.Builder
	list.Stderr = &stderr // where the go command also says what it downloads
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("finding the source of upkeep (run the demo in its source tree): %w: %s", err, httpget.Line(stderr.String(), 300))
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(d.dir, "bin")+string(filepath.Separator),
		"example.org/upkeep/cmd/upkeep", "example.org/upkeep/cmd/upkeep-dns", "example.org/upkeep/cmd/upkeep-build")
	cmd.Dir = strings.TrimSpace(string(out))
	if err := os.MkdirAll(d.tmp(), 0o755); err != nil {
		return "", err
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+d.tmp())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it started
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return "", nil
}

// tmp is for what a command that is interrupted leaves.
func (d *demo) tmp() string { return filepath.Join(d.dir, "tmp") }

func (d *demo) bin(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(d.dir, "bin", name)
}

// startEcosystem starts the module proxy and checksum database and publishes
// the first version of the sample.
func (d *demo) startEcosystem(ctx context.Context) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	d.ecosystem = &program{name: "ecosystem", path: self,
		args: []string{"ecosystem", "-dir", filepath.Join(d.dir, "ecosystem"), "-listen", d.addr.ecosystem}}
	if err := d.stack.start(ctx, d.ecosystem); err != nil {
		return "", err
	}
	base := webURL(d.addr.ecosystem)
	var key string
	err = until(ctx, answerTime, func(ctx context.Context) (err error) {
		key, err = httpText(ctx, base+"/key")
		return err
	})
	if err != nil {
		return "", err
	}
	d.proxy = base
	d.sumdb = strings.TrimSpace(key) + " " + base + "/sumdb/" + sumDBName
	d.source = target{module: sampleModule, command: sampleModule, version: sampleFirst}
	if _, err := d.publish(ctx, sampleFirst); err != nil {
		return "", err
	}
	// The protocol as any client sees it: a signed tree head and a data tile.
	head, err := httpText(ctx, base+"/sumdb/"+sumDBName+"/latest")
	if err != nil {
		return "", err
	}
	tile, err := httpText(ctx, base+"/sumdb/"+sumDBName+"/tile/8/data/000.p/1")
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(head, "go.sum database tree\n1\n") || !strings.HasPrefix(tile, sampleModule+" "+sampleFirst+" h1:") {
		return "", fmt.Errorf("the checksum database answers with head %q and tile %q", httpget.Line(head, 100), httpget.Line(tile, 100))
	}
	return base + " has " + sampleModule + " " + sampleFirst, nil
}

// publish makes a version of the sample known; "" is the next patch.
func (d *demo) publish(ctx context.Context, version string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, webURL(d.addr.ecosystem)+"/publish",
		strings.NewReader(url.Values{"version": {version}}.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := webClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := httpget.Check(resp); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	return strings.TrimSpace(string(text)), err
}

func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	return path[:i]
}

// run runs one of the programs to its end and returns its output.
func (d *demo) run(ctx context.Context, prog string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.bin(prog), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+d.tmp())
	var stderr strings.Builder
	cmd.Stderr = &lineWriter{&stderr, func(line string) { d.r.progress("%s", httpget.Line(line, 80)) }}
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", prog, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// lineWriter keeps what is written and hands each line on.
type lineWriter struct {
	keep io.Writer
	line func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for l := range strings.Lines(string(p)) {
		w.line(l)
	}
	return w.keep.Write(p)
}

// startDNS makes the zone's key and starts upkeep-dns.
func (d *demo) startDNS(ctx context.Context) (string, error) {
	dir := filepath.Join(d.dir, "dns")
	if err := d.writeDNSConfig(ctx, dir); err != nil {
		return "", err
	}
	d.dns = &program{name: "upkeep-dns", path: d.bin("upkeep-dns"), args: []string{"serve", "-config", filepath.Join(dir, "upkeep-dns.toml")}}
	if err := d.stack.start(ctx, d.dns); err != nil {
		return "", err
	}
	return d.seeDNS(ctx, d.source.version, 2*time.Minute)
}

// seeDNS waits until the name server lists a version (or a newer one), over
// both transports, and has delv validate it where delv is installed.
func (d *demo) seeDNS(ctx context.Context, version string, limit time.Duration) (string, error) {
	qname, err := name.Module(d.source.module, demoZone)
	if err != nil {
		return "", err
	}
	var text string
	for _, network := range []string{"udp", "tcp"} {
		err := until(ctx, limit, func(ctx context.Context) error {
			texts, _, err := askTXT(ctx, network, d.addr.dns, qname)
			if err != nil {
				return err
			}
			text = strings.Join(texts, " | ")
			entries, err := name.ParseTXT(text)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if semver.Major(e.Version) == semver.Major(version) && semver.Compare(e.Version, version) >= 0 {
					return nil
				}
			}
			return fmt.Errorf("TXT %s is %q, without %s", qname, text, version)
		})
		if err != nil {
			return "", fmt.Errorf("over %s: %w", network, err)
		}
	}
	host, port, err := net.SplitHostPort(d.addr.dns)
	if err != nil {
		return "", err
	}
	verdict, err := delvValidates(ctx, host, port, d.anchor, demoZone, qname)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		verdict = "delv is not installed, so it did not validate this"
	case err != nil:
		return "", err
	default:
		verdict = "delv: " + verdict
	}
	return fmt.Sprintf("%q over UDP and TCP; %s", text, verdict), nil
}

// startBuild makes the log's key and starts upkeep-build.
func (d *demo) startBuild(ctx context.Context) (string, error) {
	dir := filepath.Join(d.dir, "build")
	note, err := d.writeBuildConfig(ctx, dir)
	if err != nil {
		return "", err
	}
	d.build = &program{name: "upkeep-build", path: d.bin("upkeep-build"), args: []string{"serve", "-config", filepath.Join(dir, "upkeep-build.toml")}}
	if err := d.stack.start(ctx, d.build); err != nil {
		return "", err
	}
	base := webURL(d.addr.build)
	err = until(ctx, time.Minute, func(ctx context.Context) error {
		head, err := httpText(ctx, base+"/tlog/latest")
		if err == nil && !strings.HasPrefix(head, "go.sum database tree\n") {
			err = fmt.Errorf("its log answers %q", httpget.Line(head, 100))
		}
		return err
	})
	return base + note, err
}

// startRelays puts the relays of the hostile steps between upkeep and the
// servers that it asks. They are honest until told otherwise.
func (d *demo) startRelays(context.Context) (string, error) {
	builder, err := url.Parse(webURL(d.addr.build))
	if err != nil {
		return "", err
	}
	if d.httpRelay, err = newHTTPRelay(d.addr.buildRelay, builder); err != nil {
		return "", err
	}
	if d.dnsRelay, err = newDNSRelay(d.addr.dnsRelay, d.addr.dns, demoZone); err != nil {
		return "", err
	}
	return "", nil
}

// startUpkeep obtains the first version, verified, and starts it under upkeep.
func (d *demo) startUpkeep(ctx context.Context) (string, error) {
	dir := filepath.Join(d.dir, "service")
	if err := d.initService(ctx, dir); err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(d.addr.service)
	if err != nil {
		return "", err
	}
	d.upkeep = &program{name: "upkeep", path: d.bin("upkeep"), env: []string{"HOST=" + host, "PORT=" + port},
		args: []string{"run", "-config", filepath.Join(dir, "upkeep.toml")}}
	if err := d.stack.start(ctx, d.upkeep); err != nil {
		return "", err
	}
	d.browser = newBrowser()
	return d.seeService(ctx, d.source.version, 30*time.Second)
}

// seeService waits until the service answers over HTTP and the program that
// listens there is the version asked for, by its own build information.
func (d *demo) seeService(ctx context.Context, version string, limit time.Duration) (string, error) {
	var seen string
	err := until(ctx, limit, func(ctx context.Context) error {
		bi, pid, err := listener(ctx, d.addr.service, webURL(d.addr.web))
		if err != nil {
			return err
		}
		if bi.Main.Path != d.source.module || bi.Path != d.source.command || bi.Main.Version != version {
			return fmt.Errorf("process %d is %s %s; it should be %s", pid, bi.Path, bi.Main.Version, version)
		}
		text, err := httpText(ctx, webURL(d.addr.service)+"/")
		if err != nil {
			return err
		}
		seen = fmt.Sprintf("process %d is %s %s, built with %s", pid, bi.Path, bi.Main.Version, bi.GoVersion)
		if !d.real() {
			if !strings.Contains(text, " hello "+version+"\n") {
				return fmt.Errorf("the service says %q", httpget.Line(text, 100))
			}
			seen += fmt.Sprintf("; it says %q", strings.TrimSpace(text))
		}
		return nil
	})
	return seen, err
}

// set-up steps, shared by both ways to run the demo.
func (d *demo) setUp(ctx context.Context) error {
	if err := d.choosePorts(); err != nil {
		return err
	}
	type step struct {
		name string
		f    func(context.Context) (string, error)
	}
	steps := []step{{"build upkeep, upkeep-dns and upkeep-build from source", d.buildPrograms}}
	if d.real() {
		steps = append(steps, step{"find the module at this machine's module proxy", d.findModule})
	} else {
		steps = append(steps, step{"module proxy and checksum database serve", d.startEcosystem})
	}
	steps = append(steps,
		step{"upkeep-dns serves " + demoZone, d.startDNS},
		step{"upkeep-build serves", d.startBuild})
	if d.options.check {
		steps = append(steps, step{"relays stand between upkeep and the servers", d.startRelays})
	}
	steps = append(steps, step{"upkeep obtains the service, verified, and runs it", d.startUpkeep})
	for _, s := range steps {
		if err := d.r.step(ctx, s.name, s.f); err != nil {
			return d.explain(s.name, err)
		}
	}
	return nil
}

// explain adds where to look to a failed step.
func (d *demo) explain(step string, err error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "step %q failed: %v", step, err)
	for _, p := range d.stack.progs {
		fmt.Fprintf(&b, "\n\nlast output of %s:\n%s", p.name, tail(p.log, 1500))
	}
	return errors.New(b.String())
}

// interactive runs everything, says what to try, and waits for the end.
func (d *demo) interactive(ctx context.Context, keys io.Reader) error {
	if err := d.setUp(ctx); err != nil {
		return err
	}
	if err := d.printTries(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		sc := bufio.NewScanner(keys)
		for sc.Scan() {
			lines <- strings.TrimSpace(sc.Text())
		}
	}()
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nending everything")
			return nil
		case key := <-lines:
			if err := d.key(ctx, key); err != nil {
				fmt.Printf("%v\n", err)
			}
		}
	}
}

func (d *demo) key(ctx context.Context, key string) error {
	switch {
	case key == "p" && !d.real():
		version, err := d.publish(ctx, "")
		if err != nil {
			return err
		}
		fmt.Printf("published %s %s\n", sampleModule, version)
		began := time.Now()
		if _, err := d.seeDNS(ctx, version, 30*time.Second); err != nil {
			return err
		}
		fmt.Printf("seen in DNS %.2f s later", time.Since(began).Seconds())
		err = until(ctx, answerTime, func(ctx context.Context) error {
			s, err := status(ctx, webURL(d.addr.web))
			if err == nil && (s.Plan.Candidate == nil || s.Plan.Candidate.Version != version) {
				err = fmt.Errorf("the page %s/ does not offer it: %s %s", webURL(d.addr.web), s.Plan.Reason, s.Knowledge.Error)
			}
			return err
		})
		if err != nil {
			fmt.Println()
			return err
		}
		fmt.Printf("; the page %s/ offers it\n", webURL(d.addr.web))
	case key == "s":
		s, err := status(ctx, webURL(d.addr.web))
		if err != nil {
			return err
		}
		fmt.Println(summary(s))
	case key != "":
		return d.printTries()
	}
	return nil
}

func summary(s supervisor.Status) string {
	return fmt.Sprintf("%s %s (%s): %s", s.Service.Name, s.Service.Version, s.Service.GoVersion, s.Summary)
}
