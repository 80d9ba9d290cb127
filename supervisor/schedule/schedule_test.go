package schedule

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func at(t *testing.T, zone, s string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02 15:04 -0700"} {
		if v, err := time.ParseInLocation(layout, s, loc); err == nil {
			return v
		}
	}
	t.Fatalf("bad time %q", s)
	return time.Time{}
}

func TestNext(t *testing.T) {
	const ams, nyc, lh = "Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe"
	for _, tc := range []struct {
		name, zone, windows, now, want string // want "": never
	}{
		{"no windows", ams, "", "2026-11-21 12:00", "2026-11-21 12:00"},
		{"inside", ams, "mo-fr 9-17", "2026-11-23 09:00", "2026-11-23 09:00"},
		{"last minute", ams, "mo-fr 9-17", "2026-11-23 16:59:59", "2026-11-23 16:59:59"},
		{"end is outside", ams, "mo-fr 9-17", "2026-11-23 17:00", "2026-11-24 09:00"},
		{"weekend", ams, "mo-fr 9-17", "2026-11-21 12:00", "2026-11-23 09:00"},
		{"seconds are cut", ams, "mo-fr 9-17", "2026-11-23 08:59:30", "2026-11-23 09:00"},
		{"days", ams, "sa,su", "2026-11-20 13:37", "2026-11-21 00:00"},
		{"whole days touch", ams, "sa,su", "2026-11-21 23:59:59", "2026-11-21 23:59:59"},
		{"range over the week's end", ams, "fr-mo 1-2", "2026-11-22 03:00", "2026-11-23 01:00"},
		{"over midnight, evening", ams, "22:30-04:00", "2026-11-21 12:00", "2026-11-21 22:30"},
		{"over midnight, morning", ams, "22:30-04:00", "2026-11-21 03:59", "2026-11-21 03:59"},
		{"over midnight, after", ams, "22:30-04:00", "2026-11-21 04:00", "2026-11-21 22:30"},
		{"friday night ends on saturday", ams, "fr 22:30-04:00", "2026-11-21 03:00", "2026-11-21 03:00"},
		{"saturday night is not friday night", ams, "fr 22:30-04:00", "2026-11-21 23:00", "2026-11-27 22:30"},
		{"to midnight", ams, "mo 22-24", "2026-11-23 23:59", "2026-11-23 23:59"},
		{"two windows", ams, "mo 9-10|we 9-10", "2026-11-23 10:00", "2026-11-25 09:00"},
		{"upper case", ams, "MO-FR 9-17", "2026-11-23 09:00", "2026-11-23 09:00"},
		// 2026-03-29 02:00 CET → 03:00 CEST.
		{"gap: window inside it is lost", ams, "su 02:15-02:45", "2026-03-29 00:00", "2026-04-05 02:15"},
		{"gap: daily window comes next day", ams, "02:15-02:45", "2026-03-29 00:00", "2026-03-30 02:15"},
		{"gap: window around it opens when it ends", ams, "02:15-05:00", "2026-03-29 00:00", "2026-03-29 03:00 +0200"},
		{"gap: window before it", ams, "01:30-03:30", "2026-03-29 01:59", "2026-03-29 01:59"},
		// 2026-10-25 03:00 CEST → 02:00 CET.
		{"overlap: first time", ams, "02:15-02:45", "2026-10-25 00:00", "2026-10-25 02:15 +0200"},
		{"overlap: second time", ams, "02:15-02:45", "2026-10-25 02:50 +0200", "2026-10-25 02:15 +0100"},
		{"overlap: open in the second hour", ams, "02:15-02:45", "2026-10-25 02:30 +0100", "2026-10-25 02:30 +0100"},
		{"overlap: after both", ams, "02:15-02:45", "2026-10-25 02:45 +0100", "2026-10-26 02:15 +0100"},
		{"summer is another offset", ams, "9-17", "2026-07-01 00:00", "2026-07-01 09:00 +0200"},
		{"New York, gap", nyc, "02:00-03:00", "2026-03-08 00:00", "2026-03-09 02:00 -0400"},
		{"New York, overlap", nyc, "01:00-02:00", "2026-11-01 01:59 -0400", "2026-11-01 01:59 -0400"},
		{"half an hour's gap", lh, "02:00-02:30", "2026-10-04 01:00", "2026-10-05 02:00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var texts []string
			if tc.windows != "" {
				texts = strings.Split(tc.windows, "|")
			}
			w, err := ParseWindows(texts, tc.zone)
			if err != nil {
				t.Fatal(err)
			}
			now := at(t, tc.zone, tc.now)
			got := w.Next(now)
			if want := at(t, tc.zone, tc.want); !got.Equal(want) {
				t.Errorf("from %v: %v; want %v", now, got, want)
			}
		})
	}
}

func TestParseWindowsErrors(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "one or two parts"},
		{"mo fr 9-17", "one or two parts"},
		{"xx 9-17", `names the day "xx"`},
		{"mo-xx", `names the day "mo-xx"`},
		{"9-17 mo", "hours before days"},
		{"mo 9", "without an end"},
		{"mo 9-25", "a time that is none"},
		{"mo 9:5-17", "a time that is none"},
		{"mo 9:60-17", "a time that is none"},
		{"mo 24-3", "a time that is none"},
		{"mo 9-24:30", "a time that is none"},
		{"9-9", "is empty"},
		{"mo -9-17", "a time that is none"},
		{"mo 1e1-17", "a time that is none"},
	} {
		if _, err := ParseWindows([]string{tc.text}, "UTC"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v; want an error with %q", tc.text, err, tc.want)
		}
	}
	if _, err := ParseWindows(nil, "Europe/Atlantis"); err == nil || !strings.Contains(err.Error(), "Europe/Atlantis") {
		t.Errorf("unknown zone: %v", err)
	}
}

func TestAt(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) // a Monday
	win := func(s string) *Windows {
		w, err := ParseWindows([]string{s}, "UTC")
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	share := Share("machine")
	part := func(d time.Duration) time.Duration { return time.Duration(share * float64(d)) }
	if share <= 0.1 || share >= 0.9 {
		t.Fatalf("the seed's share is %v; choose a seed nearer to the middle, so that the rows below tell something", share)
	}
	for _, tc := range []struct {
		name string
		in   Input
		want time.Time
		wait string
	}{
		{"at once", Input{}, now, ""},
		{"delay over", Input{NotBefore: now.Add(-time.Hour)}, now, ""},
		{"delay", Input{NotBefore: now.Add(time.Hour)}, now.Add(time.Hour), "its delay"},
		{"failure", Input{NotBefore: now.Add(time.Hour), Retry: now.Add(2 * time.Hour)}, now.Add(2 * time.Hour), "after a failure"},
		{"failure over", Input{Retry: now.Add(-time.Second)}, now, ""},
		{"window", Input{Windows: win("14-15")}, now.Add(2 * time.Hour), "the next window"},
		{"delay into a window", Input{Windows: win("11-15"), NotBefore: now.Add(time.Hour)}, now.Add(time.Hour), "its delay"},
		{"delay past a window", Input{Windows: win("11-13"), NotBefore: now.Add(2 * time.Hour)}, now.Add(23 * time.Hour), "the next window"},
		{"jitter", Input{Jitter: time.Hour, Seed: "machine", Spread: now}, now.Add(part(time.Hour)), "its turn"},
		{"jitter is over", Input{Jitter: time.Hour, Seed: "machine", Spread: now.Add(-time.Hour)}, now, ""},
		{"jitter without start", Input{Jitter: time.Hour, Seed: "machine"}, now.Add(part(time.Hour)), "its turn"},
		{"jitter counts from the delay's end", Input{Jitter: time.Hour, Seed: "machine", Spread: now.Add(-5 * time.Hour), NotBefore: now.Add(time.Hour)},
			now.Add(time.Hour + part(time.Hour)), "its delay"},
		{"jitter is squeezed into the window", Input{Windows: win("14-14:10"), Jitter: time.Hour, Seed: "machine", Spread: now},
			now.Add(2*time.Hour + part(10*time.Minute)), "the next window"},
		{"jitter inside the window counts from its opening", Input{Windows: win("11:50-15"), Jitter: time.Hour, Seed: "machine", Spread: now.Add(-48 * time.Hour)},
			now.Add(-10*time.Minute + part(time.Hour)), "its turn"},
		{"long in the window", Input{Windows: win("10-15"), Jitter: time.Hour, Seed: "machine", Spread: now.Add(-48 * time.Hour)}, now, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.in.Now = now
			got := At(tc.in)
			if d := got.At.Sub(tc.want); d > time.Millisecond || d < -time.Millisecond {
				t.Errorf("at %v; want %v", got.At, tc.want)
			}
			if tc.wait == "" && got.Wait != "" || !strings.Contains(got.Wait, tc.wait) {
				t.Errorf("waits for %q; want %q", got.Wait, tc.wait)
			}
			if got.At.After(now) && !tc.in.Windows.Open(got.At) {
				t.Errorf("%v is outside the windows", got.At)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		n              int
		min, max, want time.Duration
	}{
		{1, time.Minute, time.Hour, time.Minute},
		{2, time.Minute, time.Hour, 2 * time.Minute},
		{6, time.Minute, time.Hour, 32 * time.Minute},
		{7, time.Minute, time.Hour, time.Hour},
		{1 << 30, time.Minute, time.Hour, time.Hour},
		{1, time.Hour, time.Minute, time.Minute},
		{3, 0, time.Minute, 0},
	} {
		if got := Backoff(tc.n, tc.min, tc.max); got != tc.want {
			t.Errorf("Backoff(%d, %v, %v) = %v; want %v", tc.n, tc.min, tc.max, got, tc.want)
		}
	}
}

// Seeds that differ at their end only are spread as well as any others.
func TestShare(t *testing.T) {
	var quarters [4]int
	for i := range 100 {
		s := Share("example.org/m" + strconv.Itoa(i))
		if s < 0 || s >= 1 {
			t.Fatalf("%v", s)
		}
		quarters[int(s*4)]++
	}
	for i, n := range quarters {
		if n < 10 {
			t.Errorf("%d of 100 are in quarter %d", n, i)
		}
	}
}
