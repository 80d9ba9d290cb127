package supervisor

import (
	"errors"
	"strings"
	"testing"
)

func TestChooseHandover(t *testing.T) {
	cannot := errors.New("the kernel is old")
	for _, tc := range []struct {
		facts  handoverFacts
		mode   string
		reason string
	}{
		{handoverFacts{asked: HandoverAuto}, HandoverRetain, "can be kept open"},
		{handoverFacts{asked: HandoverAuto, tell: cannot}, HandoverRestart, "the kernel is old"},
		{handoverFacts{asked: HandoverAuto, sockets: 1, tell: cannot}, HandoverListenFDs, "are configured"},
		{handoverFacts{asked: HandoverAuto, sockets: 1, proxy: true}, HandoverProxy, "proxy is configured"},
		{handoverFacts{asked: HandoverRetain, sockets: 1}, HandoverRetain, "as configured"},
		{handoverFacts{asked: HandoverRetain, tell: cannot}, HandoverRestart, "the kernel is old"},
		{handoverFacts{asked: HandoverListenFDs, sockets: 1}, HandoverListenFDs, "as configured"},
		{handoverFacts{asked: HandoverProxy, proxy: true}, HandoverProxy, "as configured"},
		{handoverFacts{asked: HandoverRestart, sockets: 1}, HandoverRestart, "as configured"},
	} {
		if mode, reason := chooseHandover(tc.facts); mode != tc.mode || !strings.Contains(reason, tc.reason) {
			t.Errorf("%+v: %s, %q; want %s, %q", tc.facts, mode, reason, tc.mode, tc.reason)
		}
	}
}

func TestCheckSockets(t *testing.T) {
	good := SocketConfig{Name: "web", Network: "tcp", Address: ":80"}
	for _, tc := range []struct {
		sockets []SocketConfig
		bad     string
	}{
		{nil, ""},
		{[]SocketConfig{good, {Name: "a", Network: "unix", Address: "/run/a", Mode: "0660", User: "0"}}, ""},
		{[]SocketConfig{good, good}, "twice"},
		{[]SocketConfig{{Network: "tcp", Address: ":80"}}, "name"},
		{[]SocketConfig{{Name: "a:b", Network: "tcp", Address: ":80"}}, "colons"},
		{[]SocketConfig{{Name: "upkeep-retain-1", Network: "tcp", Address: ":80"}}, "upkeep's own"},
		{[]SocketConfig{{Name: "a", Network: "sctp", Address: ":80"}}, "network"},
		{[]SocketConfig{{Name: "a", Network: "tcp", Address: "80"}}, "host:port"},
		{[]SocketConfig{{Name: "a", Network: "tcp", Address: ":80", Mode: "0660"}}, "only files have"},
		{[]SocketConfig{{Name: "a", Network: "unix", Address: "x"}}, "no file name"},
		{[]SocketConfig{{Name: "a", Network: "unix", Address: "/x", Mode: "999"}}, "looks like"},
		{[]SocketConfig{{Name: "a", Network: "unix", Address: "/x", User: "no-such-user-here"}}, "no user"},
		{[]SocketConfig{{Name: "a", Network: "unix", Address: "/x", Group: "no-such-group-here"}}, "no group"},
	} {
		c := Config{File: "test", Process: ProcessConfig{Sockets: tc.sockets}}
		err := c.checkSockets()
		if (err != nil) != (tc.bad != "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%+v: %v; want %q", tc.sockets, err, tc.bad)
		}
	}
	c := Config{Process: ProcessConfig{Sockets: []SocketConfig{{Name: "a", Network: "unix", Address: "/x", Mode: "0640", User: "7", Group: "8"}, good}}}
	if s := c.listenSpecs(); s[0].Mode != 0o640 || s[0].UID != 7 || s[0].GID != 8 || s[1].UID != -1 || s[1].Name != "web" {
		t.Errorf("specs %+v", s)
	}
}
