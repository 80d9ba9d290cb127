//go:build unix

package proxy

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// helperName is what this program is called as when it is to forward.
const helperName = "upkeep-proxy"

// The descriptors of the helper.
const (
	controlFD = 3
	listenFD  = 4 // and the following
)

// Helper is the first thing that a program calls whose supervisor has to be
// able to start it as a helper. It returns at once, unless this is one.
func Helper() {
	if len(os.Args) == 0 || filepath.Base(os.Args[0]) != helperName {
		return
	}
	// The supervisor's signals reach the whole group. The helper ends with the supervisor, not before.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	control := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(control)
	control.Close()
	if err == nil {
		err = serve(conn, func(i int) (net.Listener, error) {
			f := os.NewFile(uintptr(listenFD+i), "listener")
			defer f.Close()
			return net.FileListener(f)
		}, log)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upkeep proxy:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
