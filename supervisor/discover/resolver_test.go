package discover

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/supervisor/discover/zonetest"
)

// A validator is a resolver that validates itself and asks the tree.
type validator struct {
	program string
	pkg     string // Debian package
	// files returns its configuration and command line.
	command func(dir, port, upstream string, anchor *dns.DS) (conf string, args []string)
}

var validators = []validator{
	{"unbound", "unbound", func(dir, port, upstream string, anchor *dns.DS) (string, []string) {
		return fmt.Sprintf(`server:
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
	trust-anchor: "%s"
	trust-anchor-signaling: no
	module-config: "validator iterator"
	val-sig-skew-min: 300
	val-sig-skew-max: 300
	msg-cache-size: 0
	rrset-cache-size: 0
	cache-max-ttl: 0
remote-control:
	control-enable: no
forward-zone:
	name: "."
	forward-addr: 127.0.0.1@%s
`, port, dir, dsText(anchor), upstream), []string{"-d", "-c", filepath.Join(dir, "conf")}
	}},
	{"named", "bind9", func(dir, port, upstream string, anchor *dns.DS) (string, []string) {
		return fmt.Sprintf(`options { directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; session-keyfile none;
	recursion yes; dnssec-validation yes; notify no; empty-zones-enable no; trust-anchor-telemetry no;
	forward only; forwarders { 127.0.0.1 port %s; }; };
controls { };
trust-anchors { . static-ds %d %d %d %q; };
`, dir, port, upstream, anchor.KeyTag, anchor.Algorithm, anchor.DigestType, anchor.Digest), []string{"-g", "-n", "1", "-c", filepath.Join(dir, "conf")}
	}},
	{"kresd", "knot-resolver", func(dir, port, upstream string, anchor *dns.DS) (string, []string) {
		return fmt.Sprintf(`
net.listen('127.0.0.1', %s, { kind = 'dns' })
net.ipv6 = false
cache.open(10 * MB, 'lmdb://%s')
trust_anchors.remove('.')
trust_anchors.add('%s')
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('priming')
modules.unload('ta_sentinel')
policy.add(policy.all(policy.FORWARD({'127.0.0.1@%s'})))
`, port, filepath.Join(dir, "cache"), dsText(anchor), upstream), []string{"-n", "-c", filepath.Join(dir, "conf"), dir}
	}},
}

func dsText(ds *dns.DS) string { return strings.Join(strings.Fields(ds.String()), " ") }

// find returns where the program is. Without it the test is skipped, or fails
// where everything has to be installed.
func (v validator) find(t *testing.T) string {
	t.Helper()
	for _, name := range []string{v.program, "/usr/sbin/" + v.program} {
		if bin, err := exec.LookPath(name); err == nil {
			return bin
		}
	}
	if os.Getenv("UPKEEP_TEST_FULL") == "1" {
		t.Fatalf("%s is not installed (Debian package %s)", v.program, v.pkg)
	}
	t.Skipf("%s is not installed (Debian package %s)", v.program, v.pkg)
	return ""
}

// start runs the resolver in front of the tree until the test ends.
func (v validator) start(t *testing.T, tr *zonetest.Tree, anchor *dns.DS) (addr string) {
	t.Helper()
	bin := v.find(t)
	_, upstream, err := net.SplitHostPort(tr.Addr)
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for range 5 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr = ln.Addr().String()
		ln.Close() // somebody else can take it now: then another one is tried
		_, port, _ := net.SplitHostPort(addr)
		dir := t.TempDir()
		conf, args := v.command(dir, port, upstream, anchor)
		if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, args...)
		cmd.Dir = dir
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Minute
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { cmd.Wait(); close(done) }()
		t.Cleanup(func() { cmd.Process.Kill(); <-done })
		if listens(addr, done) {
			return addr
		}
		cmd.Process.Kill()
		<-done
		said = out.String()
	}
	t.Fatalf("%s does not listen: %s", v.program, said)
	return ""
}

// listens waits until somebody answers a question at the address, or the
// program has ended.
func listens(addr string, done <-chan struct{}) bool {
	q := new(dns.Msg)
	q.SetQuestion("version.bind.", dns.TypeTXT)
	q.Question[0].Qclass = dns.ClassCHAOS
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		select {
		case <-done:
			return false
		default:
		}
		// It does not tell when it listens.
		_, _, udp := (&dns.Client{Timeout: 2 * time.Second}).Exchange(q, addr)
		_, _, tcp := (&dns.Client{Net: "tcp", Timeout: 10 * time.Second}).Exchange(q, addr)
		if udp == nil && tcp == nil {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// verdictOf is what the resolver makes of the answer: good, unsigned or bad.
func verdictOf(t *testing.T, addr, qname string) (string, *dns.Msg) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(qname, dns.TypeTXT)
	q.SetEdns0(udpSize, true)
	q.AuthenticatedData = true
	r, _, err := (&dns.Client{Net: "tcp", Timeout: time.Minute}).Exchange(q, addr)
	switch {
	case err != nil:
		t.Fatalf("the resolver does not answer: %v", err)
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		return "bad", r
	case r.AuthenticatedData:
		return "good", r
	}
	return "unsigned", r
}
