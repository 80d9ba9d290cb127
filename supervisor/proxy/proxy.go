// Package proxy forwards a service's connections, so that one version can end
// and the next begin without a connection being refused: on any system, and for
// any service that lets itself be told its address.
//
// A helper process, this program executed again, holds the listening sockets
// and forwards. It outlives the exec by which the supervisor updates itself and
// ends with the supervisor. The supervisor tells it by a socket pair what to do:
// hold what is new, switch to other backends, release.
//
// The network is not trusted: headers, times, connections and waiting requests
// are bounded (the constants in forward.go and gate.go), X-Forwarded-* of clients are
// replaced, and requests are taken apart and put together again by net/http
// alone, so that the service reads no other request than the helper did. Bodies
// are not bounded: that is the service's to decide. The service is trusted as far
// as its answers go to the client. The supervisor is trusted.
//
// A backend's address is one of loopback that was free when it was chosen; on
// Linux its port is none that clients are given. Until the service listens there,
// another program of this machine could: where local
// users are not trusted, use another mode.
//
// It keeps no files.
package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// A Mode is how a listener's connections are forwarded.
type Mode string

// The modes.
const (
	HTTP Mode = "http" // HTTP/1.1 and unencrypted HTTP/2, request by request
	TCP  Mode = "tcp"  // bytes; for TLS and everything else
)

// A Listen is one address that clients know.
type Listen struct {
	Name    string `toml:"name" comment:"By which the template {{.Addr \"name\"}} in service.args and process.env names it."`
	Address string `toml:"address" comment:"Where clients connect, host:port."`
	Mode    Mode   `toml:"mode" comment:"\"http\" (HTTP/1.1, unencrypted HTTP/2, WebSocket) or \"tcp\" (bytes, also TLS)."`
}

// Check returns what is wrong with the listeners.
func Check(list []Listen) error {
	if len(list) == 0 {
		return errors.New("no address is named for the proxy to listen on")
	}
	seen := map[string]bool{}
	for _, l := range list {
		switch {
		case l.Name == "" || seen[l.Name]:
			return fmt.Errorf("the name %q of a proxy's address is empty or there twice", l.Name)
		case l.Mode != HTTP && l.Mode != TCP:
			return fmt.Errorf("%s: the mode %q of a proxy's address can be \"http\" or \"tcp\"", l.Name, l.Mode)
		}
		if _, _, err := net.SplitHostPort(l.Address); err != nil {
			return fmt.Errorf("%s: %q is not host:port", l.Name, l.Address)
		}
		seen[l.Name] = true
	}
	return nil
}

// Backends are the addresses on which one run of the service listens, by the
// names of the listeners.
type Backends map[string]string

// Reserve chooses a free address of loopback for each listener.
func Reserve(list []Listen) (Backends, error) {
	b := Backends{}
	for _, l := range list {
		// All stay taken until all are chosen.
		s, err := free(clientPorts())
		if err != nil {
			return nil, fmt.Errorf("choosing an address for the service: %w", err)
		}
		defer s.Close()
		b[l.Name] = s.Addr().String()
	}
	return b, nil
}

// lowestPort is where free begins; below are those of well-known services.
const lowestPort = 20000

// free listens on a free port of loopback. The service takes it later, after a
// start of any length, so it is none that the kernel gives to clients meanwhile:
// of those there are many while requests are forwarded.
func free(clients int) (s net.Listener, err error) {
	for range 50 {
		if clients-lowestPort < 1000 {
			break
		}
		addr := fmt.Sprintf("127.0.0.1:%d", lowestPort+rand.IntN(clients-lowestPort))
		if s, err = net.Listen("tcp", addr); err == nil {
			return s, nil
		}
	}
	if s, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s, err = net.Listen("tcp", "[::1]:0")
	}
	return s, err
}

// clientPorts is the first port that the kernel gives to clients, where it says
// so; elsewhere Linux's default.
func clientPorts() (first int) {
	data, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // there on Linux only
	if _, err := fmt.Sscan(string(data), &first); err != nil {
		return 32768
	}
	return first
}
