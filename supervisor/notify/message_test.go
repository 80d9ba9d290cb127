package notify

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want Message
		err  string
	}{
		"ready":            {in: "READY=1", want: Message{Ready: true}},
		"not ready":        {in: "READY=0"},
		"zero byte behind": {in: "READY=1\n\x00", want: Message{Ready: true}},
		"several": {in: "READY=1\nSTATUS=on :80\nMAINPID=12\n", want: Message{
			Ready: true, Status: ptr("on :80"), MainPID: 12}},
		"reload":              {in: "RELOADING=1\nMONOTONIC_USEC=123", want: Message{Reloading: true}},
		"ping":                {in: "WATCHDOG=1", want: Message{Ping: true}},
		"trigger":             {in: "WATCHDOG=trigger", want: Message{Trigger: true}},
		"interval":            {in: "WATCHDOG_USEC=2000000", want: Message{Watchdog: ptr(2 * time.Second)}},
		"watchdog off":        {in: "WATCHDOG_USEC=0", want: Message{Watchdog: ptr(time.Duration(0))}},
		"patience":            {in: "EXTEND_TIMEOUT_USEC=5000000", want: Message{Extend: 5 * time.Second}},
		"patience has bounds": {in: "EXTEND_TIMEOUT_USEC=18446744073709551615", want: Message{Extend: maxWish}},
		"store":               {in: "FDSTORE=1\nFDNAME=web\nFDPOLL=0", want: Message{FDStore: true, FDName: "web", FDPollOff: true}},
		"name alone":          {in: "FDNAME=web"},
		"status is cleaned":   {in: "STATUS=a\tb\x1b[2J\xff", want: Message{Status: ptr("a?b?[2J?")}},
		"barrier":             {in: "BARRIER=1", want: Message{Barrier: true}},
		"errno":               {in: "ERRNO=2", want: Message{Errno: ptr(2)}},
		"unknown":             {in: "X_OWN=1\nno variable\n=\n"},
		"empty":               {in: ""},
		"zero byte inside":    {in: "READY=1\x00STOPPING=1", err: "zero byte"},
		"no pid":              {in: "MAINPID=0", err: "MAINPID"},
		"huge pid":            {in: "MAINPID=4294967296", err: "MAINPID"},
		"negative":            {in: "WATCHDOG_USEC=-1", err: "WATCHDOG_USEC"},
		"colon in name":       {in: "FDSTORE=1\nFDNAME=a:b", err: "FDNAME"},
		"long name":           {in: "FDSTORE=1\nFDNAME=" + strings.Repeat("a", 256), err: "FDNAME"},
		"too long":            {in: "STATUS=" + strings.Repeat("a", maxMessage), err: "more than"},
		"too many lines":      {in: strings.Repeat("A=1\n", maxLines+1), err: "more than"},
	} {
		got, err := Parse([]byte(c.in))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one with %q", name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !equal(got.Status, c.want.Status) || !equal(got.Errno, c.want.Errno) || !equal(got.Watchdog, c.want.Watchdog) {
			t.Errorf("%s: got %+v", name, got)
		}
		got.Status, got.Errno, got.Watchdog = nil, nil, nil
		c.want.Status, c.want.Errno, c.want.Watchdog = nil, nil, nil
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=well\nMAINPID=7\nWATCHDOG_USEC=1000"))
	f.Add([]byte("FDSTORE=1\nFDNAME=web:1\nFDPOLL=0"))
	f.Add([]byte("STATUS=\xff\xfe\x00"))
	f.Add([]byte("EXTEND_TIMEOUT_USEC=99999999999999999999"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		if m.Status != nil && (len(*m.Status) > maxStatus || !utf8.ValidString(*m.Status) || strings.ContainsAny(*m.Status, "\n\r\x1b\x00")) {
			t.Errorf("status %q is not clean", *m.Status)
		}
		if m.Extend < 0 || m.Extend > maxWish || m.Watchdog != nil && (*m.Watchdog < 0 || *m.Watchdog > maxWish) {
			t.Errorf("intervals out of bounds: %+v", m)
		}
		if m.FDName != "" && !goodName(m.FDName) {
			t.Errorf("name %q", m.FDName)
		}
	})
}

func TestLife(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	type said struct {
		at  float64
		msg string
	}
	for name, c := range map[string]struct {
		opt  Options
		said []said
		dead float64 // when the watchdog bites; -1 = never
	}{
		"no watchdog":              {said: []said{{1, "READY=1"}}, dead: -1},
		"never heard of":           {opt: Options{Watchdog: 10 * time.Second, Patience: 20 * time.Second}, dead: 30},
		"from ready on":            {opt: Options{Watchdog: 10 * time.Second, Patience: 20 * time.Second}, said: []said{{3, "READY=1"}}, dead: 13},
		"pings move it":            {opt: Options{Watchdog: 10 * time.Second}, said: []said{{3, "READY=1"}, {9, "WATCHDOG=1"}, {18, "WATCHDOG=1"}}, dead: 28},
		"a second ready is none":   {opt: Options{Watchdog: 10 * time.Second}, said: []said{{3, "READY=1"}, {9, "RELOADING=1"}, {12, "READY=1"}}, dead: 13},
		"it asks for one":          {said: []said{{1, "READY=1"}, {2, "WATCHDOG_USEC=4000000"}}, dead: 6},
		"it gives it up":           {opt: Options{Watchdog: 10 * time.Second}, said: []said{{1, "READY=1\nWATCHDOG_USEC=0"}}, dead: -1},
		"a slow start is extended": {opt: Options{Watchdog: 10 * time.Second, Patience: 20 * time.Second}, said: []said{{15, "EXTEND_TIMEOUT_USEC=60000000"}}, dead: 85},
		"not while stopping":       {opt: Options{Watchdog: 10 * time.Second}, said: []said{{1, "READY=1"}, {5, "STOPPING=1"}}, dead: -1},
		"trigger":                  {said: []said{{4, "WATCHDOG=trigger"}}, dead: 4},
	} {
		l := begin(c.opt, t0)
		last := 0.0
		for _, s := range c.said {
			m, err := Parse([]byte(s.msg))
			if err != nil {
				t.Fatal(err)
			}
			if l.expired(at(s.at)) {
				t.Errorf("%s: expired before %q", name, s.msg)
			}
			l.hear(m, at(s.at))
			last = s.at
		}
		switch {
		case c.dead < 0 && l.expired(at(1e6)):
			t.Errorf("%s: the watchdog bites", name)
		case c.dead >= 0 && !l.expired(at(c.dead)):
			t.Errorf("%s: the watchdog does not bite at %v, deadline %v", name, c.dead, l.deadline())
		case c.dead > last && l.expired(at(c.dead-0.001)):
			t.Errorf("%s: the watchdog bites too soon, deadline %v", name, l.deadline())
		}
	}

	l := begin(Options{}, t0)
	for _, s := range []string{"READY=1\nSTATUS=a", "RELOADING=1\nSTATUS=b"} {
		m, _ := Parse([]byte(s))
		l.hear(m, t0)
	}
	if !l.Ready || !l.Reloading || l.Status != "b" {
		t.Errorf("while reloading: %+v", l.State)
	}
	m, _ := Parse([]byte("STOPPING=1\nERRNO=5\nMAINPID=9"))
	if l.hear(m, t0); l.Reloading || !l.Stopping || l.Errno != 5 || l.MainPID != 9 || l.Messages != 3 {
		t.Errorf("while stopping: %+v", l.State)
	}
}

func TestStrip(t *testing.T) {
	got := Strip([]string{"A=1", "NOTIFY_SOCKET=/x", "LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b", "WATCHDOG_USEC=1", "WATCHDOG_PID=2", "CREDENTIALS_DIRECTORY=/c"})
	if strings.Join(got, " ") != "A=1 CREDENTIALS_DIRECTORY=/c" {
		t.Errorf("got %q", got)
	}
}
