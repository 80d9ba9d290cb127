package web

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Clock writes a duration like 00:41 or 1:02:03.
func Clock(d time.Duration) string {
	s := int(d.Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// Distance writes how far a point in time lies back (or ahead), in one unit.
func Distance(d time.Duration) string {
	ahead := d < 0
	d = d.Abs()
	var s string
	switch {
	case d < 10*time.Second && ahead:
		return "in a moment"
	case d < 10*time.Second:
		return "just now"
	case d < time.Minute:
		s = count(d.Seconds(), "second")
	case d < time.Hour:
		s = count(d.Minutes(), "minute")
	case d < 48*time.Hour:
		s = count(d.Hours(), "hour")
	default:
		s = count(d.Hours()/24, "day")
	}
	if ahead {
		return "in " + s
	}
	return s + " ago"
}

func count(n float64, unit string) string {
	k := int(math.Floor(n))
	if k == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", k, unit)
}

// Bytes writes a size like 12.3 MB.
func Bytes(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1000*1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1000*1000*1000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

// Number writes a count with its thousands apart, by narrow spaces, which
// people of all countries read the same way.
func Number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// Sentence makes a sentence of a reason: a capital at its start, a full stop at
// its end. Versions and names at the start stay as they are.
func Sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	word, _, _ := strings.Cut(text, " ")
	if text[0] >= 'a' && text[0] <= 'z' && !strings.ContainsAny(word, "0123456789./_@") {
		text = string(text[0]-'a'+'A') + text[1:]
	}
	if !strings.ContainsAny(text[len(text)-1:], ".!?:") {
		text += "."
	}
	return text
}

// Seconds writes a duration like 8.3 s or 4 min 7 s.
func Seconds(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// Lines writes the lines of a log for a pre element.
func Lines(lines []string) string { return strings.Join(lines, "\n") + "\n" }
