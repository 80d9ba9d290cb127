package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// version of what supervisor and helper say to each other. A helper may be of
// an older program than the supervisor: verbs are added, never changed.
const version = 1

// The verbs.
const (
	verbListen  = "listen"  // first: names and modes of the descriptors
	verbHold    = "hold"    // let nothing new through, wait for what is under way
	verbSwitch  = "switch"  // probe backends, then use them
	verbRelease = "release" // let through what waits
	verbDrain   = "drain"   // wait for what is under way with former backends
	verbStats   = "stats"
)

// request is one line to the helper.
type request struct {
	V        int           `json:"v"`
	ID       int64         `json:"id"`
	Verb     string        `json:"verb"`
	Listen   []Listen      `json:"listen,omitempty"`
	MaxWait  time.Duration `json:"max_wait,omitempty"` // listen: how long a request is held at most
	Backends Backends      `json:"backends,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"`
}

// reply is one line from it.
type reply struct {
	V     int    `json:"v"`
	ID    int64  `json:"id"`
	Err   string `json:"err,omitempty"`
	Left  int    `json:"left,omitempty"` // hold, drain: what is still under way
	Stats Stats  `json:"stats,omitzero"`
}

// Stats are what goes on in the helper.
type Stats struct {
	Busy    int  `json:"busy"`    // requests under way
	Waiting int  `json:"waiting"` // held
	Held    bool `json:"held"`
}

// maxLine bounds a line of the protocol.
const maxLine = 64 << 10

// lines reads JSON lines.
type lines struct{ sc *bufio.Scanner }

func newLines(r io.Reader) *lines {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4<<10), maxLine)
	return &lines{sc}
}

// next reads a line; io.EOF is the end.
func (l *lines) next(v any) error {
	if !l.sc.Scan() {
		if err := l.sc.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	return json.Unmarshal(l.sc.Bytes(), v)
}

func writeLine(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) >= maxLine {
		return errors.New("a line to or from the proxy is too long")
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

func (r request) check() error {
	if r.V != version {
		return fmt.Errorf("this proxy speaks version %d and was asked in version %d", version, r.V)
	}
	return nil
}
