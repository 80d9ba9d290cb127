package notify

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a message.
const (
	maxMessage = 4096 // bytes, as systemd's
	maxFiles   = 64   // descriptors
	maxLines   = 64
	maxStatus  = 200 // bytes that are kept
	maxName    = 255 // of a descriptor
	// maxWish bounds intervals: what a service may ask for at once.
	maxWish = time.Hour
)

// A Message is one datagram.
type Message struct {
	Ready, Reloading, Stopping bool
	Ping                       bool // WATCHDOG=1
	Trigger                    bool // WATCHDOG=trigger: treat me as one that hangs
	Status                     *string
	Errno                      *int
	MainPID                    int
	Watchdog                   *time.Duration // WATCHDOG_USEC
	Extend                     time.Duration  // EXTEND_TIMEOUT_USEC
	FDStore, FDRemove          bool
	FDName                     string
	FDPollOff                  bool
	Barrier                    bool
}

// Parse reads a message. Unknown variables are ignored, as the protocol wants;
// a known one with an impossible value makes the whole message wrong.
func Parse(data []byte) (Message, error) {
	var m Message
	if len(data) > maxMessage {
		return m, fmt.Errorf("message has more than %d bytes", maxMessage)
	}
	data = bytes.TrimRight(data, "\x00")
	if bytes.IndexByte(data, 0) >= 0 {
		return m, errors.New("message has a zero byte inside")
	}
	lines := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		if line == "" {
			continue
		}
		if lines++; lines > maxLines {
			return m, fmt.Errorf("message has more than %d lines", maxLines)
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		if err := m.set(name, value); err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
	}
	if m.FDName != "" && !m.FDStore && !m.FDRemove {
		m.FDName = "" // means nothing
	}
	return m, nil
}

func (m *Message) set(name, value string) error {
	var err error
	switch name {
	case "READY":
		m.Ready = value == "1"
	case "RELOADING":
		m.Reloading = value == "1"
	case "STOPPING":
		m.Stopping = value == "1"
	case "BARRIER":
		m.Barrier = value == "1"
	case "FDSTORE":
		m.FDStore = value == "1"
	case "FDSTOREREMOVE":
		m.FDRemove = value == "1"
	case "FDPOLL":
		m.FDPollOff = value == "0"
	case "FDNAME":
		if !goodName(value) {
			return errors.New("is no name for a descriptor")
		}
		m.FDName = value
	case "STATUS":
		s := clean(value)
		m.Status = &s
	case "WATCHDOG":
		switch value {
		case "1":
			m.Ping = true
		case "trigger":
			m.Trigger = true
		}
	case "WATCHDOG_USEC":
		var d time.Duration
		if d, err = usec(value); err == nil {
			m.Watchdog = &d
		}
	case "EXTEND_TIMEOUT_USEC":
		m.Extend, err = usec(value)
	case "MAINPID":
		m.MainPID, err = number(value, 1, math.MaxInt32)
	case "ERRNO":
		var n int
		if n, err = number(value, 0, 4095); err == nil {
			m.Errno = &n
		}
	}
	return err
}

func number(s string, lo, hi int) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || int(n) < lo || int(n) > hi {
		return 0, fmt.Errorf("%q is no number from %d to %d", clean(s), lo, hi)
	}
	return int(n), nil
}

// usec reads microseconds. A wish beyond the limit is one for the limit.
func usec(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of microseconds", clean(s))
	}
	if n > uint64(maxWish/time.Microsecond) {
		return maxWish, nil
	}
	return time.Duration(n) * time.Microsecond, nil
}

// goodName is systemd's rule (fdname_is_valid): printable ASCII without colon,
// since colons separate the names in LISTEN_FDNAMES.
func goodName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return true
}

// clean makes one short printable line of what a service says.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) <= maxStatus {
		return s
	}
	n := maxStatus
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
