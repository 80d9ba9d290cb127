//go:build unix

package main

import (
	"os"
	"syscall"
)

var (
	stopSignals  = []os.Signal{os.Interrupt, syscall.SIGTERM}
	reloadSignal = os.Signal(syscall.SIGHUP)
	// passedSignals go to the service.
	passedSignals = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
)
