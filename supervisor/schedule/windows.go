package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Windows are the times at which installing is allowed. A nil or empty value
// allows any time.
//
// A window is where the clock on the wall says so: one from 02:15 to 02:45
// doesn't come on the night that skips these minutes, and comes twice on the
// night that repeats them.
type Windows struct {
	loc   *time.Location
	spans []span
	text  []string
}

type span struct {
	days     [7]bool // on which it starts
	from, to int     // minutes of the day; to <= from: over midnight
}

var dayNames = [7]string{"su", "mo", "tu", "we", "th", "fr", "sa"}

// ParseWindows reads windows of the form "mo-fr 9-17", "sa,su" or
// "22:30-04:00", and the name of their time zone.
func ParseWindows(texts []string, zone string) (*Windows, error) {
	loc := time.Local
	if zone != "" {
		var err error
		if loc, err = time.LoadLocation(zone); err != nil {
			return nil, fmt.Errorf("time zone %q is not known here; names are like \"Europe/Amsterdam\" or \"UTC\", and come with the system's package tzdata", zone)
		}
	}
	w := &Windows{loc: loc, text: texts}
	for _, text := range texts {
		s, err := parseSpan(text)
		if err != nil {
			return nil, err
		}
		w.spans = append(w.spans, s)
	}
	return w, nil
}

func parseSpan(text string) (span, error) {
	s := span{to: 24 * 60}
	fail := func(why string) (span, error) {
		return span{}, fmt.Errorf("window %q %s; write it like \"mo-fr 9-17\", \"sa,su\" or \"22:30-04:00\"", text, why)
	}
	fields := strings.Fields(strings.ToLower(text))
	if len(fields) == 0 || len(fields) > 2 {
		return fail("has not one or two parts")
	}
	hours := ""
	if fields[0][0] >= '0' && fields[0][0] <= '9' {
		if len(fields) == 2 {
			return fail("has hours before days")
		}
		hours = fields[0]
		s.days = [7]bool{true, true, true, true, true, true, true}
	} else {
		for item := range strings.SplitSeq(fields[0], ",") {
			first, last, isRange := strings.Cut(item, "-")
			if !isRange {
				last = first
			}
			a, okA := day(first)
			b, okB := day(last)
			if !okA || !okB {
				return fail(fmt.Sprintf("names the day %q, which is none of mo tu we th fr sa su", item))
			}
			for d := a; ; d = (d + 1) % 7 {
				s.days[d] = true
				if d == b {
					break
				}
			}
		}
		if len(fields) == 2 {
			hours = fields[1]
		}
	}
	if hours == "" {
		return s, nil
	}
	from, to, ok := strings.Cut(hours, "-")
	if !ok {
		return fail("has a time without an end")
	}
	var okFrom, okTo bool
	s.from, okFrom = minute(from)
	s.to, okTo = minute(to)
	if !okFrom || !okTo || s.from == 24*60 {
		return fail("has a time that is none")
	}
	if s.from == s.to {
		return fail("is empty")
	}
	return s, nil
}

func day(name string) (int, bool) {
	for i, d := range dayNames {
		if d == name {
			return i, true
		}
	}
	return 0, false
}

func minute(s string) (int, bool) {
	h, m, colon := strings.Cut(s, ":")
	hour, err := strconv.ParseUint(h, 10, 8)
	if err != nil || len(h) > 2 || hour > 24 {
		return 0, false
	}
	var min uint64
	if colon {
		if min, err = strconv.ParseUint(m, 10, 8); err != nil || len(m) != 2 || min > 59 {
			return 0, false
		}
	}
	if hour == 24 && min > 0 {
		return 0, false
	}
	return int(hour*60 + min), true
}

// Open reports whether installing is allowed at a time.
func (w *Windows) Open(t time.Time) bool {
	if w == nil || len(w.spans) == 0 {
		return true
	}
	t = t.In(w.loc)
	m := t.Hour()*60 + t.Minute()
	today := int(t.Weekday())
	yesterday := (today + 6) % 7
	for _, s := range w.spans {
		if s.from < s.to {
			if s.days[today] && s.from <= m && m < s.to {
				return true
			}
			continue
		}
		if s.days[today] && m >= s.from || s.days[yesterday] && m < s.to {
			return true
		}
	}
	return false
}

// horizon is how far ahead an opening is looked for: a weekly window that a
// change of the clock swallows comes a week later.
const horizon = 15 * 24 * time.Hour

// Next returns the first time from t on at which installing is allowed, or the
// zero time if there is none. Going minute by minute is right whatever the
// clocks do, and takes a millisecond at worst.
func (w *Windows) Next(t time.Time) time.Time {
	if w.Open(t) {
		return t
	}
	for m := t.Truncate(time.Minute).Add(time.Minute); m.Before(t.Add(horizon)); m = m.Add(time.Minute) {
		if w.Open(m) {
			return m
		}
	}
	return time.Time{}
}

// opened returns when the window around t opened, looking back for at most back.
func (w *Windows) opened(t time.Time, back time.Duration) time.Time {
	m := t
	for {
		before := m.Truncate(time.Minute).Add(-time.Nanosecond)
		if t.Sub(before) > back || !w.Open(before) {
			return m.Truncate(time.Minute)
		}
		m = before
	}
}

// spread returns the time a share of max after from, squeezed into the window
// that is open at from.
func (w *Windows) spread(from time.Time, share float64, max time.Duration) time.Time {
	room := max
	if w != nil && len(w.spans) > 0 {
		room = 0
		for end := from.Truncate(time.Minute).Add(time.Minute); w.Open(end.Add(-time.Nanosecond)); end = end.Add(time.Minute) {
			room = end.Sub(from)
			if room >= max {
				room = max
				break
			}
		}
	}
	return from.Add(time.Duration(share * float64(room)))
}
