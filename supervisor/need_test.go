//go:build unix

package supervisor

import (
	"os"
	"runtime"
	"testing"
)

// needRoot skips what only root may do.
func needRoot(t *testing.T) {
	t.Helper()
	needLinux(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// usePasswd has a file stand for /etc/passwd in this process, where that can be.
var usePasswd = func(string) { panic("not on this system") }

// needLinux skips tests that look at processes through /proc.
func needLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: the test finds left-over processes in /proc")
	}
}
