//go:build unix && !linux

package supervisor

import "testing"

func testRealDisk(t *testing.T) { t.Skip("needs Linux: the test mounts a file system") }
