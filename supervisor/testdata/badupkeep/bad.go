// This file goes into cmd/upkeep by -overlay, for vm-test.sh: an upkeep that is
// well on trial, and fails when it is in command.
package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// behaviour is set by the linker: how it fails.
var behaviour string

func init() {
	fd, err := strconv.Atoi(os.Getenv("UPKEEP_HANDOFF"))
	if err != nil {
		return
	}
	list := make([]byte, 1<<20)
	n, err := syscall.Pread(fd, list, 0) // where it is read from later stays
	if err != nil || !bytes.Contains(list[:n], []byte(`"standby-pid"`)) {
		return // on trial, or standing by
	}
	switch behaviour {
	case "exits":
		os.Exit(1)
	case "hangs":
		time.Sleep(time.Hour)
	}
}
