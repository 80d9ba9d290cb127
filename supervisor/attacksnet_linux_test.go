package supervisor_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/discover/zonetest"
)

// hostileNetwork is a network namespace of the test's own, at the other end of
// a cable (a veth pair): who asks there sends real packets to another host.
// Without root and iproute2 the attackers are on loopback.
func hostileNetwork(t *testing.T) zonetest.Place {
	at, err := newNamespace(t)
	if err == nil {
		return at
	}
	if os.Getenv("UPKEEP_TEST_FULL") == "1" {
		t.Fatal(err)
	}
	t.Logf("the attackers listen on loopback and not in a network namespace of their own: %v", err)
	return zonetest.Loopback
}

func newNamespace(t *testing.T) (zonetest.Place, error) {
	if _, err := exec.LookPath("ip"); err != nil {
		return zonetest.Place{}, fmt.Errorf("ip is not installed (Debian package iproute2)")
	}
	if os.Geteuid() != 0 {
		return zonetest.Place{}, fmt.Errorf("making a network namespace takes root")
	}
	ip := func(args ...string) error {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	// Addresses that are for tests of networks (RFC 2544); the process' number
	// keeps tests that run at one time apart.
	pid := os.Getpid()
	ns := fmt.Sprintf("upkeep%d", pid)
	near, far := fmt.Sprintf("uk%da", pid), fmt.Sprintf("uk%db", pid)
	sub := net.IPv4(198, byte(18+pid>>14&1), byte(pid>>6), byte(pid<<2)).To4()
	addr := func(n byte) string { return net.IPv4(sub[0], sub[1], sub[2], sub[3]+n).String() }
	if err := ip("netns", "add", ns); err != nil {
		return zonetest.Place{}, err
	}
	t.Cleanup(func() {
		if err := ip("netns", "del", ns); err != nil { // the cable goes with it
			t.Error(err)
		}
	})
	for _, args := range [][]string{
		{"link", "add", near, "type", "veth", "peer", "name", far, "netns", ns},
		{"addr", "add", addr(1) + "/30", "dev", near},
		{"link", "set", near, "up"},
		{"-n", ns, "addr", "add", addr(2) + "/30", "dev", far},
		{"-n", ns, "link", "set", far, "up"},
	} {
		if err := ip(args...); err != nil {
			return zonetest.Place{}, err
		}
	}
	return zonetest.Place{Host: addr(2), In: func(f func() error) error { return inNamespace(ns, f) }}, nil
}

// inNamespace calls f on a thread that is in the namespace. Sockets that it
// opens stay there.
func inNamespace(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and nothing
		// else ever runs in the namespace by mistake.
		runtime.LockOSThread()
		done <- func() error {
			file, err := os.Open("/run/netns/" + ns)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the network namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}
