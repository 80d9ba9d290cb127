package dnsserver

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
)

// A wildcard is for IPv6 too where the loopback interface has no IPv4 address: then
// package net takes 0.0.0.0 alone.
func TestListenWithoutLoopback(t *testing.T) {
	if os.Getenv("UPKEEP_TEST_NETNS") == "" {
		inNamespace(t)
		return
	}
	ip := tool(t, "ip")
	loopbackUp(t)
	if out, err := exec.Command(ip, "address", "delete", "127.0.0.1/8", "dev", "lo").CombinedOutput(); err != nil {
		t.Skipf("the loopback interface keeps its IPv4 address: %v: %s", err, out)
	}
	if l, err := net.Listen("tcp6", "[::]:0"); err != nil {
		t.Skipf("no IPv6: %v", err)
	} else {
		l.Close()
	}
	_, addr := testServer(t, ListenConfig{Workers: 1}, ":0")
	port := fmt.Sprint(addr.Port())
	for _, network := range []string{"4", "6"} {
		host := map[string]string{"4": "0.0.0.0", "6": "::"}[network]
		if l, err := net.Listen("tcp"+network, net.JoinHostPort(host, port)); err == nil {
			l.Close()
			t.Errorf("nobody listens for TCP over IPv%s at %s", network, addr)
		}
		if l, err := net.ListenPacket("udp"+network, net.JoinHostPort(host, port)); err == nil {
			l.Close()
			t.Errorf("nobody listens for UDP over IPv%s at %s", network, addr)
		}
	}
}
