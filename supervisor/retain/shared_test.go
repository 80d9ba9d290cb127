//go:build linux

package retain

import (
	"fmt"
	"strings"
	"testing"
)

// A new version may begin or cease to open several sockets on one address; what
// one version does is not said of the next.
func TestShared(t *testing.T) {
	r := newRig(t, Options{})
	addr := freeAddr(t)
	for _, words := range []string{"tcp", "shared", "shared", "tcp"} {
		r.start(words + "=" + addr)
		r.up(addr)
		said := strings.Contains(fmt.Sprint(r.keeper.Status().Warnings), "SO_REUSEPORT")
		if said != (words == "shared") {
			t.Errorf("%s: status %+v", words, r.keeper.Status())
		}
		r.stop()
	}
	if r.lostFor(LostChanged) != 2 {
		t.Errorf("lost %v", r.lost)
	}
}
