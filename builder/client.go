package builder

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// clientKey is the key under which a request's context has its asker.
type clientKey struct{}

// An asker is who sent a request, and the header of the answer.
type asker struct {
	client string // its network
	addr   netip.Addr
	header http.Header
}

func askerOf(ctx context.Context) asker {
	a, _ := ctx.Value(clientKey{}).(asker)
	return a
}

// ClientOf returns the network that a request comes from: neighbours share
// their fair part.
func ClientOf(r *http.Request) string {
	if a := askerOf(r.Context()); a.client != "" {
		return a.client
	}
	return clientNetwork(remoteAddr(r))
}

// identify notes who sent a request.
func (c *clientLimits) identify(r *http.Request, answer http.Header) *http.Request {
	remote, forwarded := remoteAddr(r), r.Header.Values("X-Forwarded-For")
	addr := clientAddr(remote, forwarded, c.proxies)
	if len(forwarded) == 0 && contains(c.proxies, remote) && relayed(r) {
		c.warn.Do(func() {
			c.logger.Warn("a reverse proxy seems not to say in X-Forwarded-For who asks: all its clients count as one, and on loopback none has a limit", "proxy", remote, "host", r.Host)
		})
	}
	client := clientNetwork(addr)
	if contains(c.except, addr) { // not its neighbours
		client = netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	return r.WithContext(context.WithValue(r.Context(), clientKey{}, asker{client, addr, answer}))
}

// relayed reports whether a request comes from a program on behalf of another,
// as far as it says so: it names this server otherwise than this machine does, or
// the proxy.
func relayed(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	here := host == "" || host == "localhost" || err == nil && addr.IsLoopback()
	return !here || r.Header.Get("Via") != "" || r.Header.Get("Forwarded") != "" || r.Header.Get("X-Real-Ip") != ""
}

func remoteAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// clientAddr returns the address that a request comes from: what the last of
// our own proxies has seen. Everything left of that in X-Forwarded-For anybody
// can write.
func clientAddr(remote netip.Addr, forwarded []string, proxies []netip.Prefix) netip.Addr {
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for addr := remote; ; hops = hops[:len(hops)-1] {
		if !contains(proxies, addr) || len(hops) == 0 {
			return addr
		}
		hop := strings.TrimSpace(hops[len(hops)-1])
		before, err := netip.ParseAddr(hop)
		if err != nil { // some proxies write the port too
			withPort, portErr := netip.ParseAddrPort(hop)
			if portErr != nil {
				return addr
			}
			before = withPort.Addr()
		}
		addr = before.Unmap().WithZone("")
	}
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// clientNetwork returns the network of an address.
func clientNetwork(addr netip.Addr) string {
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return "unknown"
	}
	return p.String()
}

// parseNetworks reads networks and single addresses.
func parseNetworks(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	var errs []error
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(text); err == nil {
				p = netip.PrefixFrom(addr, addr.BitLen())
			}
		}
		if err != nil {
			errs = append(errs, errors.New(strconv.Quote(text)+" is no address and no network like 192.0.2.0/24"))
			continue
		}
		out = append(out, p.Masked())
	}
	return out, errors.Join(errs...)
}

// retryAfter tells a client that asks too much when to come again.
func retryAfter(h http.Header, err error) {
	var f *Failure
	if h != nil && errors.As(err, &f) && f.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.after+time.Second-1)/time.Second)))
	}
}
