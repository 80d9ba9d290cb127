package main

import (
	"os"
	"syscall"
)

var (
	stopSignals   = []os.Signal{os.Interrupt, syscall.SIGTERM}
	reloadSignal  os.Signal
	passedSignals []os.Signal
)

func outliveReaders() {}
