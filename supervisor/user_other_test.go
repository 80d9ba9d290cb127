//go:build unix && !linux

package supervisor

import "testing"

func testUserDeleted(t *testing.T) { t.Skip("needs Linux: it has mounts of its own") }

func testRunsAs(t *testing.T) { t.Skip("needs Linux: it looks into /proc") }
