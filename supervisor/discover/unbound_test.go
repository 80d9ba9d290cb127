package discover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// startUnbound runs a real validating resolver in front of the tree.
func startUnbound(t *testing.T, tr *zonetest.Tree) (addr string) {
	t.Helper()
	bin, err := exec.LookPath("unbound")
	if err != nil {
		bin, err = exec.LookPath("/usr/sbin/unbound")
	}
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal("unbound is not installed")
		}
		t.Skip("unbound is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	_, upstream, _ := net.SplitHostPort(tr.Addr)
	dir := t.TempDir()
	conf := filepath.Join(dir, "unbound.conf")
	anchor := filepath.Join(dir, "root.key")
	if err := os.WriteFile(anchor, []byte(tr.Anchor()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, `server:
	interface: 127.0.0.1@%s
	do-daemonize: no
	username: ""
	chroot: ""
	directory: "%s"
	pidfile: ""
	use-syslog: no
	logfile: ""
	num-threads: 1
	do-not-query-localhost: no
	local-zone: "test." nodefault
	trust-anchor-file: "%s"
	trust-anchor-signaling: no
	module-config: "validator iterator"
	msg-cache-size: 0
	rrset-cache-size: 0
	cache-max-ttl: 0
remote-control:
	control-enable: no
forward-zone:
	name: "."
	forward-addr: 127.0.0.1@%s
`, port, dir, anchor, upstream), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-d", "-c", conf)
	var out strings.Builder
	cmd.Stderr, cmd.Stdout = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	for range 200 {
		select {
		case <-done:
			t.Fatalf("unbound ended: %s", out.String())
		default:
		}
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return addr
		}
		time.Sleep(50 * time.Millisecond) // it does not tell when it listens
	}
	t.Fatal("unbound does not listen")
	return ""
}

// Through a real resolver: what it does not validate we do, and with its AD bit
// both come to the same.
func TestUnbound(t *testing.T) {
	old := epoch
	epoch = time.Now().UTC().Truncate(time.Second)
	zonetest.Epoch = epoch
	defer func() { epoch, zonetest.Epoch = old, old }()
	tr := zonetest.New(t, zonetest.Fast)
	addr := startUnbound(t, tr)
	with := func(trust string) *Discoverer {
		return discoverer(t, tr, func(c *Config, _ *Options) {
			c.Sources, c.Trust, c.Timeout = []string{"udp://" + addr}, trust, config.Duration(8*time.Second)
		})
	}
	for _, trust := range []string{TrustDNSSEC, TrustResolver} {
		d := with(trust)
		if a, err := d.Ask(t.Context(), hello); err != nil || join(a.Versions) != "v1.0.1 v0.3.0" {
			t.Errorf("%s: %v, %v", trust, a.Versions, err)
		}
		if _, err := d.Ask(t.Context(), "example.org/nothing"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: unknown module: %v", trust, err)
		}
	}
	tr.Mu.Lock()
	tr.Attack = func(q dns.Question, m *dns.Msg) *dns.Msg {
		for _, r := range m.Answer {
			if txt, ok := r.(*dns.TXT); ok {
				txt.Txt = []string{"v=v1.0.66 t=6a000000"}
			}
		}
		return m
	}
	tr.Mu.Unlock()
	// With CD the resolver hands on what it would refuse, so that the reason is ours.
	if _, err := with(TrustDNSSEC).Ask(t.Context(), hello); bogusKind(err) != BadSignature {
		t.Errorf("forged, validated here: %v", err)
	}
	if _, err := with(TrustResolver).Ask(t.Context(), hello); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("forged, validated by the resolver: %v", err)
	}
}
