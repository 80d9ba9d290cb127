package discover

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// A target is a source in the configuration, read.
type target struct {
	spec    string // as configured
	scheme  string // "system", "udp", "tcp", "tls", "https", "server"
	addr    string // host:port, for https too; "" for system
	tlsName string // name in the certificate
	url     string // for https
}

// parseTarget reads one element of sources.
func parseTarget(spec string) (target, error) {
	t := target{spec: spec}
	if spec == "system" {
		t.scheme = "system"
		return t, nil
	}
	bad := func(format string, args ...any) (target, error) {
		return target{}, fmt.Errorf("source %q %s", spec, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(spec)
	if err != nil || u.Host == "" {
		return bad("is neither \"system\" nor a URL like udp://192.0.2.53:53, tcp://…, tls://…, https://… or server://…")
	}
	if u.User != nil || u.RawQuery != "" {
		return bad("holds a user or a query, which mean nothing here")
	}
	t.scheme = u.Scheme
	port := u.Port()
	switch u.Scheme {
	case "udp", "tcp", "server":
		if u.Fragment != "" {
			return bad("names a certificate (#%s), which only tls:// and https:// have", u.Fragment)
		}
		port = or(port, "53")
	case "tls":
		port = or(port, "853")
	case "https":
		port = or(port, "443")
		v := *u
		v.Fragment = ""
		t.url = v.String()
		if u.Path == "" {
			t.url += "/dns-query"
		}
	default:
		return bad("begins with %s://; it must be udp, tcp, tls, https or server", u.Scheme)
	}
	if u.Scheme != "https" && u.Path != "" && u.Path != "/" {
		return bad("has a path, which only https:// has")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad("has the port %s; it can be 1 to 65535", port)
	}
	t.addr = net.JoinHostPort(u.Hostname(), port)
	t.tlsName = or(u.Fragment, u.Hostname())
	return t, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// recursive reports whether the source is a resolver.
func (t target) recursive() bool { return t.scheme != "server" }

// encrypted reports whether others on the way cannot read the question.
func (t target) encrypted() bool { return t.scheme == "tls" || t.scheme == "https" }

// loopback reports whether packets to the address stay on this machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// resolvConf is where systems say which resolvers they use; replaced in tests.
var resolvConf = "/etc/resolv.conf"

// systemServers returns the system's resolvers. It is read each time: a
// machine's network changes.
func systemServers() ([]string, error) {
	cc, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil, fmt.Errorf("finding the system's resolvers: %w; name a resolver in sources instead, like \"udp://192.0.2.53\"", err)
	}
	if len(cc.Servers) == 0 {
		return nil, fmt.Errorf("finding the system's resolvers: %s names none; name a resolver in sources instead, like \"udp://192.0.2.53\"", resolvConf)
	}
	var out []string
	for _, s := range cc.Servers[:min(len(cc.Servers), 3)] {
		out = append(out, net.JoinHostPort(strings.TrimSpace(s), cc.Port))
	}
	return out, nil
}
