//go:build unix

package supervisor

import (
	"runtime"
	"testing"
)

// needLinux skips tests that look at processes through /proc.
func needLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: the test finds left-over processes in /proc")
	}
}
