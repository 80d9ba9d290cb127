package process

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rlimits are the resource limits by name (setrlimit(2)).
var rlimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// ParseRlimit reads a resource limit like "nofile=1024", "nofile=1024:4096"
// (soft and hard) or "core=infinity".
func ParseRlimit(s string) (Rlimit, error) {
	name, value, _ := strings.Cut(s, "=")
	resource, ok := rlimits[strings.ToLower(name)]
	if !ok {
		return Rlimit{}, fmt.Errorf("%q names no resource limit; try nofile, core, nproc, as, memlock", s)
	}
	soft, hard, two := strings.Cut(value, ":")
	if !two {
		hard = soft
	}
	r := Rlimit{Resource: resource}
	for _, v := range []struct {
		text string
		to   *uint64
	}{{soft, &r.Soft}, {hard, &r.Hard}} {
		if v.text == "infinity" {
			*v.to = unix.RLIM_INFINITY
			continue
		}
		n, err := strconv.ParseUint(v.text, 10, 63)
		if err != nil {
			return Rlimit{}, fmt.Errorf("%q has a limit that is no number; it looks like nofile=1024 or nofile=1024:4096, with infinity for none", s)
		}
		*v.to = n
	}
	if r.Soft > r.Hard {
		return Rlimit{}, fmt.Errorf("%q has a soft limit above the hard one", s)
	}
	return r, nil
}
