package index

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/upkeep/tlog/logtest"
)

// runClock feeds a generated log to the clock and returns how far it is off
// the truth, in seconds, at every record of [from, to): negative is late.
func runClock(t *testing.T, c logtest.Content, from, to int64) []int64 {
	t.Helper()
	var k clock
	var errs []int64
	var b []byte
	last := int64(0)
	for i := max(0, from-200_000); i < to; i++ {
		b = c.AppendVersion(b[:0], i)
		path, version, _ := strings.Cut(string(b), " ")
		v, _, commit, ok := parseVersion([]byte(version))
		if !ok {
			t.Fatalf("record %d: %s", i, b)
		}
		if v.kind == pseudo {
			k.observe(i, ownerHash([]byte(path)), commit)
		}
		if k.now < last {
			t.Fatalf("the clock went back at record %d", i)
		}
		last = k.now
		if i >= from {
			errs = append(errs, k.now-c.Time(i))
		}
	}
	slices.Sort(errs)
	return errs
}

// The table in docs/log.md comes from this test (go test -v -run ClockError).
func TestClockError(t *testing.T) {
	for _, tc := range []struct {
		name    string
		c       logtest.Content
		from    int64
		p50, hi int64 // the error allowed: median late by, latest and earliest at most
	}{
		{"honest, one million records in", logtest.Content{}, 1_000_000, 3600, 6 * 3600},
		{"honest, 30 million records in", logtest.Content{}, 30_000_000, 3600, 2 * 3600},
		{"honest, 70 million records in", logtest.Content{}, 70_000_000, 3600, 2 * 3600},
		{"one forger, 70 million records in", logtest.Content{Forgers: 1}, 70_000_000, 3600, 2 * 3600},
		{"four forgers, 70 million records in", logtest.Content{Forgers: 4}, 70_000_000, 3600, 2 * 3600},
	} {
		errs := runClock(t, tc.c, tc.from, tc.from+100_000)
		at := func(share float64) int64 { return errs[int(share*float64(len(errs)-1))] }
		t.Logf("%-38s worst late %6d s, median %6d s, 99 %% better than %6d s, least %6d s", tc.name, -at(0), -at(0.5), -at(0.01), -at(1))
		if -at(0.5) > tc.p50 || -at(0) > tc.hi || at(1) > tc.hi {
			t.Errorf("%s: late by %d at the median and %d at most, early by %d; want at most %d, %d and %d", tc.name, -at(0.5), -at(0), at(1), tc.p50, tc.hi, tc.hi)
		}
	}
}

func TestClock(t *testing.T) {
	type obs struct {
		owner  uint64
		commit int64
	}
	owners := func(n int, commit int64) (out []obs) {
		for i := range n {
			out = append(out, obs{uint64(i + 1), commit})
		}
		return out
	}
	for _, tc := range []struct {
		name string
		obs  []obs
		want int64
	}{
		{"nobody", nil, 0},
		{"too few owners", owners(minOwners-1, 1000), 0},
		{"enough owners", owners(minOwners, 1000), 1000},
		{"one owner many times", slices.Repeat([]obs{{1, 1000}}, 50), 0},
		{"the k-th latest counts", []obs{{1, 5000}, {2, 4000}, {3, 3000}, {4, 2000}, {5, 1000}}, 1000},
		{"old commits change nothing", append(owners(minOwners, 100_000), owners(9, 10)...), 100_000},
		{"more claims need more agreement", append(owners(80, 100_000), owners(9, 200_000)...), 100_000},
		{"and move it when there is", append(owners(80, 100_000), owners(10, 200_000)...), 200_000},
	} {
		var k clock
		for i, o := range tc.obs {
			k.observe(int64(i), o.owner, o.commit)
		}
		if k.now != tc.want {
			t.Errorf("%s: the clock shows %d; want %d", tc.name, k.now, tc.want)
		}
		// It is the same after being stored.
		var back clock
		if rest, err := back.read(k.append(nil)); err != nil || len(rest) != 0 || fmt.Sprint(back) != fmt.Sprint(k) {
			t.Errorf("%s: read back as %v, %v; want %v", tc.name, back, err, k)
		}
	}
	// Claims from different times don't add up.
	var k clock
	for i := range 20 {
		k.observe(int64(i*claimWindow), uint64(i), 1000)
	}
	if k.now != 0 {
		t.Errorf("claims from all over the log moved the clock to %d", k.now)
	}
}
