//go:build !linux

package supervisor_test

import (
	"testing"

	"example.org/upkeep/supervisor/discover/zonetest"
)

// hostileNetwork is this machine: network namespaces are Linux's.
func hostileNetwork(*testing.T) zonetest.Place { return zonetest.Loopback }
