//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

var (
	stopSignals  = []os.Signal{os.Interrupt, syscall.SIGTERM}
	reloadSignal = os.Signal(syscall.SIGHUP)
	// passedSignals go to the service.
	passedSignals = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
)

// outliveReaders keeps a write to our output from ending upkeep when whoever
// read it is gone: that would leave the service behind. The signal isn't
// ignored, since the service would inherit that.
func outliveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
