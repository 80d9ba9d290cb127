package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/httpget"
)

// How often the demo's programs look for something new. A public log would
// not be polled like this.
const (
	dnsPoll    = 400 * time.Millisecond
	upkeepPoll = time.Second
)

// watchPoll is for servers on the internet.
const watchPoll = time.Minute

func writeConfig(file string, lines ...string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// kv is a line of TOML with a text as value.
func kv(key, value string) string { return key + " = " + strconv.Quote(value) }

// writeDNSConfig makes the zone's key, its trust anchor and the configuration.
func (d *demo) writeDNSConfig(ctx context.Context, dir string) error {
	lines := []string{
		fmt.Sprintf("listen = [%q]", d.addr.dns),
		kv("keys", filepath.Join(dir, "keys")),
		kv("state", filepath.Join(dir, "state")),
		kv("http", d.addr.dnsWeb),
		"[zone]",
		kv("name", demoZone),
		"[[zone.nameserver]]",
		kv("name", "ns"),
		`addresses = ["127.0.0.1"]`,
		"[log]",
		kv("database", d.sumdb),
		kv("proxy", d.proxy),
	}
	if d.real() {
		lines = append(lines, kv("mode", "watch"), kv("interval", watchPoll.String()),
			"[watch]", fmt.Sprintf("modules = [%q]", d.source.module), "toolchain = true")
	} else {
		lines = append(lines, kv("mode", "follow"), kv("interval", dnsPoll.String()), "seen_time = true")
	}
	file := filepath.Join(dir, "upkeep-dns.toml")
	if err := writeConfig(file, lines...); err != nil {
		return err
	}
	if _, err := d.run(ctx, "upkeep-dns", "keygen", "-config", file); err != nil {
		return err
	}
	anchor, err := d.run(ctx, "upkeep-dns", "ds", "-config", file, "-anchor")
	if err != nil {
		return err
	}
	d.anchor = filepath.Join(dir, "anchor.keys")
	return os.WriteFile(d.anchor, []byte(anchor), 0o644)
}

// writeBuildConfig makes the log's key and the configuration. It returns what
// is special about this builder.
func (d *demo) writeBuildConfig(ctx context.Context, dir string) (note string, err error) {
	keyFile := filepath.Join(dir, "log.key")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	out, err := d.run(ctx, "upkeep-build", "keygen", "-key", keyFile, buildLogName)
	if err != nil {
		return "", err
	}
	d.logKey = strings.TrimSpace(out)
	lines := []string{
		kv("listen", d.addr.build),
		kv("state", filepath.Join(dir, "state")),
		kv("key", keyFile),
		"[modules]",
		kv("proxy", d.proxy),
		kv("database", d.sumdb),
	}
	if !d.real() {
		goroot, err := goEnv(ctx, "GOROOT")
		if err != nil {
			return "", err
		}
		lines = append(lines, "[build]", fmt.Sprintf("goroot = [%q]", goroot))
	}
	file := filepath.Join(dir, "upkeep-build.toml")
	// As much confinement as this machine gives; what is lost is accepted here, and the builder's pages say so.
	var why string
	for _, loss := range []struct{ config, note string }{
		{"", ", in a sandbox"},
		{`without = ["cgroup"]`, ", in a sandbox without cgroup"},
		{`without = ["cgroup", "landlock"]`, ", in a sandbox without cgroup and Landlock"},
		{"none = true", ", without a sandbox, and its pages say so"},
	} {
		if err := writeConfig(file, append(lines[:len(lines):len(lines)], "[sandbox]", loss.config)...); err != nil {
			return "", err
		}
		note = loss.note
		if why != "" {
			note += ": " + why
		}
		_, err := d.run(ctx, "upkeep-build", "sandbox", "-config", file)
		if err == nil {
			return note, nil
		}
		if why == "" {
			_, why, _ = strings.Cut(err.Error(), "upkeep-build: ")
			why = httpget.Line(why, 200)
		}
	}
	return note, nil
}

// goEnv asks the installed go command about itself.
func goEnv(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("asking the go command for %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildSignerKey is the builder's own key, for the attack in which the builder
// itself is the liar.
func (d *demo) buildSignerKey() (string, error) {
	data, err := os.ReadFile(filepath.Join(d.dir, "build", "log.key"))
	return strings.TrimSpace(string(data)), err
}

// initService has upkeep obtain the first version and write its configuration.
func (d *demo) initService(ctx context.Context, dir string) error {
	dns, builder := d.addr.dns, d.addr.build
	if d.options.check {
		dns, builder = d.addr.dnsRelay, d.addr.buildRelay
	}
	base := filepath.Join(d.dir, "upkeep-base.toml")
	health := webURL(d.addr.service) + "/"
	if !d.real() {
		health += "health"
	}
	err := writeConfig(base,
		"[updates]",
		kv("policy", "manual"), // so that the click is what upgrades
		kv("interval", upkeepPoll.String()),
		kv("delay", "0s"),
		kv("jitter", "0s"),
		kv("backoff_min", "2s"), // what is killed here is back at once
		"[discovery]",
		kv("zone", demoZone),
		fmt.Sprintf("sources = [%q]", "server://"+dns),
		kv("anchor", d.anchor),
		"[fetch]",
		kv("key", d.logKey),
		kv("builder", webURL(builder)),
		kv("proxy", d.proxy),
		kv("sumdb", d.sumdb),
		"[health]",
		kv("url", health),
		kv("probation", "2s"),
		kv("interval", "200ms"),
		"[web]",
		kv("listen", d.addr.web),
	)
	if err != nil {
		return err
	}
	args := []string{"init", "-config", base, "-dir", dir}
	if !d.real() {
		// The sample's proxy has no Go versions: the builder offers the one installed here.
		version, err := goEnv(ctx, "GOVERSION")
		if err != nil {
			return err
		}
		args = append(args, "-go", version)
	}
	args = append(args, d.source.command+"@"+d.source.version)
	if len(d.source.args) > 0 {
		args = append(append(args, "--"), d.source.args...)
	}
	_, err = d.run(ctx, "upkeep", args...)
	return err
}

// printTries says what to look at and what to do.
func (d *demo) printTries() error {
	qname, err := name.Module(d.source.module, demoZone)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(d.addr.dns)
	if err != nil {
		return err
	}
	web, build, index := webURL(d.addr.web), webURL(d.addr.build), webURL(d.addr.dnsWeb)
	fmt.Printf(`
The newest versions, over DNS:
  dig @%[1]s -p %[2]s +dnssec %[3]s TXT
  delv @%[1]s -p %[2]s -a %[4]s +root=%[5]s %[3]s TXT
  %[6]s check -config %[7]s %[8]s

Pages and metrics:
  %[9]s/   the service, and the button that upgrades it
  %[9]s/metrics
  %[10]s/   the builder, its log below /tlog/latest
  %[11]s/   the index
  %[12]s/   the service itself

`, host, port, qname, d.anchor, demoZone, d.bin("upkeep"), filepath.Join(d.dir, "service", "upkeep.toml"), d.source.module,
		web, build, index, webURL(d.addr.service))
	if !d.real() {
		fmt.Printf("Publish the next version of %s: press p and Enter here, or the button on\n  %s/\n", sampleModule, webURL(d.addr.ecosystem))
	}
	fmt.Printf("Then click \"%s\" on the service's page, or run\n  %s update -config %s\n", upgradeButton, d.bin("upkeep"), filepath.Join(d.dir, "service", "upkeep.toml"))
	fmt.Printf("\nThe programs' output is in %s; kill one of them and it is started again:\n", filepath.Join(d.dir, "log"))
	for _, p := range d.stack.progs {
		fmt.Printf("  %7d  %s\n", p.pid(), httpget.Line(p.name+" "+strings.Join(p.args, " "), 140))
	}
	fmt.Println("\ns and Enter shows the status, Ctrl-C ends everything.")
	return nil
}
